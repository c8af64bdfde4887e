// Command tally runs go test and counts what passed, failed and was skipped.
//
//	go run ./test/tally [-o FILE] [--] [go test's arguments]
//	go run ./test/tally -sum FILE...
//
// The first form prints one line a package and the output of what failed, and keeps the outcome of every test in FILE. The
// second form adds up such files: a test counts once, as failed if it failed in any of them, otherwise as passed if it
// passed in any. So a test that one run skips, for want of a server or because the race detector is on, counts as skipped
// only if no run passed it. In continuous integration (CI=true) such a skip is a failure.
//
// The last line is always "N passed, N failed, N skipped". The exit status is 0 if nothing failed, otherwise 1.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
)

func main() {
	out := flag.String("o", "", "write the outcome of every test to this file")
	sum := flag.Bool("sum", false, "add up the files that are given as arguments")
	flag.Parse()
	var err error
	if *sum {
		err = sumFiles(os.Stdout, flag.Args(), os.Getenv("CI") == "true")
	} else {
		err = run(os.Stdout, *out, flag.Args())
	}
	if err != nil {
		if !errors.Is(err, errTests) {
			fmt.Fprintln(os.Stderr, "tally:", err)
		}
		os.Exit(1)
	}
}

// run runs go test with the arguments, reports to w and keeps the outcomes in the file out unless that is empty.
func run(w io.Writer, out string, args []string) error {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	results, err := readEvents(stdout, w)
	if err != nil {
		return errors.Join(err, cmd.Wait())
	}
	exit := cmd.Wait()
	if out != "" {
		if err := results.save(out); err != nil {
			return err
		}
	}
	c := results.count()
	fmt.Fprintln(w, c)
	if c.failed == 0 && exit != nil { // a package that does not build, or arguments that go test does not know
		return fmt.Errorf("go test: %w", exit)
	}
	if c.failed > 0 {
		return errTests
	}
	return nil
}

// sumFiles reports to w what the tests of several runs came to. With strict set, skipped tests are an error.
func sumFiles(w io.Writer, files []string, strict bool) error {
	all := outcomes{}
	for _, f := range files {
		o, err := load(f)
		if err != nil {
			return err
		}
		all.merge(o)
	}
	for _, name := range all.named(fail) {
		fmt.Fprintln(w, "failed:", name)
	}
	for _, name := range all.named(skip) {
		fmt.Fprintln(w, "skipped:", name)
	}
	c := all.count()
	fmt.Fprintln(w, c)
	if c.failed > 0 || strict && c.skipped > 0 || c.passed == 0 {
		return errTests
	}
	return nil
}
