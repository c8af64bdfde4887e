package http1_test

import "os"

func exit(code int) { os.Exit(code) }
