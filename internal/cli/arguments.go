package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	v1 "hansa.dev/hansa/api/v1"
)

// checkArguments has the commands below root tell what is wrong with the arguments and flags that they get, and what is
// right.
func checkArguments(root *cobra.Command) {
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		// A command that does not exist is the cause of a flag that does not exist either.
		if words := c.Flags().Args(); c.HasSubCommands() && len(words) > 0 {
			return unknownCommand(c, words[0])
		}
		return err
	})
	root.InitDefaultCompletionCmd()
	sayArguments(root)
	root.InitDefaultHelpCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "completion":
			c.RunE = nameOne
		case "help":
			c.Args = func(_ *cobra.Command, args []string) error {
				if found, rest, _ := root.Find(args); len(rest) > 0 {
					return unknownCommand(found, rest[0])
				}
				return nil
			}
		}
	}
}

// unknownCommand is for a word that names none of the commands below c.
func unknownCommand(c *cobra.Command, word string) error {
	c.SuggestionsMinimumDistance = 2
	if like := c.SuggestionsFor(word); len(like) > 0 {
		return fmt.Errorf("there is no command %q: did you mean %q?", c.CommandPath()+" "+word, c.CommandPath()+" "+like[0])
	}
	return fmt.Errorf("there is no command %q", c.CommandPath()+" "+word)
}

// sayArguments has c and the commands below it tell what arguments they take when they get others.
func sayArguments(c *cobra.Command) {
	check := c.Args
	switch {
	case c.HasSubCommands():
		c.Args = func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(c, args[0])
			}
			return nil
		}
	case check != nil && c.HasParent():
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return fmt.Errorf("%w; it is used as %q", misfit(c, check, args, err), c.UseLine())
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		sayArguments(sub)
	}
}

// misfit says in what way args are not those that a command takes. err is what its check says.
func misfit(c *cobra.Command, check cobra.PositionalArgs, args []string, err error) error {
	for _, a := range args {
		if len(c.ValidArgs) > 0 && !slices.Contains(c.ValidArgs, a) {
			return fmt.Errorf("%q must be one of %s", a, strings.Join(c.ValidArgs, ", "))
		}
	}
	// Only a check of cobra's counts words and knows nothing more of them.
	if text := err.Error(); !strings.HasPrefix(text, "accepts ") && !strings.HasPrefix(text, "requires ") && !strings.HasPrefix(text, "unknown command ") {
		return err
	}
	for extra := 1; extra <= 2; extra++ {
		if check(c, append(slices.Clone(args), make([]string, extra)...)) == nil {
			return errors.New("an argument is missing")
		}
	}
	for n := len(args) - 1; n >= 0; n-- {
		if check(c, args[:n]) != nil {
			continue
		}
		if f := c.Flags().Lookup("wait"); f != nil && f.NoOptDefVal != "" {
			if _, err := v1.ParseDuration(args[n]); err == nil {
				return fmt.Errorf("the argument %q is one too many: to wait so long write --wait=%s", args[n], args[n])
			}
		}
		return fmt.Errorf("the argument %q is one too many", args[n])
	}
	return err
}

// missingFlags says which of the flags that a command needs are not there, and what they are for.
func missingFlags(c *cobra.Command) error {
	var missing []string
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if len(f.Annotations[cobra.BashCompOneRequiredFlag]) == 0 || f.Changed {
			return
		}
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + " (" + name + ")"
		}
		missing = append(missing, fmt.Sprintf("the flag %s is missing: %s", name, f.Usage))
	})
	return errors.New(strings.Join(missing, "; "))
}
