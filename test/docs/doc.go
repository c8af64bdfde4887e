// Package docs tests the documentation against the program: every command line of hansa that a page shows exists, with the
// flags that the page gives it. That resources on a page are valid and that links lead somewhere is checked by
// internal/archtest, what the commands do by test/script.
package docs
