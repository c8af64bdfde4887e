// Command hansa is the whole product: the control plane, the gateway and the command line.
package main

import (
	"context"
	"os"

	"hansa.dev/hansa/internal/cli"
)

func main() {
	os.Exit(cli.Main(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv))
}
