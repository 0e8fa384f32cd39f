// Command contractgen turns the contract into code and checks it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
)

// usage is what a person reads who named no command.
const usage = `usage: contractgen <command> [-root folder] [-module folder]

commands
  generate   write gen/ from openapi/, schemas/ds/, queries/ and migrations/
  check      fail unless gen/ is up to date, the contract lints, has its examples
             and fixtures, and breaks nobody
  accept     make the present contract the one that later changes are compared with`

var errUsage = errors.New(usage)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errUsage
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	root := flags.String("root", ".", "folder that holds the contract")
	module := flags.String("module", ".", "folder of the go.mod that pins the tools")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	switch args[0] {
	case "generate":
		return generate(ctx, *root, *module)
	case "check":
		return checkContract(ctx, *root, *module, out)
	case "accept":
		return accept(*root, out)
	}
	return errUsage
}
