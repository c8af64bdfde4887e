package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/importer/openapi"
	"hansa.dev/hansa/internal/resource"
)

// shownNotes is how many notes of an import people see.
const shownNotes = 20

func (s *session) importCommand() *cobra.Command {
	return group("import", "Make resources of other products' and standards' documents", s.importOpenAPICommand())
}

func (s *session) importOpenAPICommand() *cobra.Command {
	var o openapi.Options
	var environment string
	var write, dropDefinition bool
	var flags changeFlags
	c := &cobra.Command{
		Use:   "openapi FILE",
		Short: "Make an API and its backend of an OpenAPI 3 document",
		Long: `Import openapi makes an API of an OpenAPI document, 3.0 or 3.1, in YAML or JSON ("-": standard input): its operations, its
security as the policy apiKey, and a Backend of its first server. It applies them, or writes them with --write, and
tells what could not be carried over. Importing a changed document again makes a new revision.`,
		Example: "  hansa import openapi petstore.yaml --environment prod\n  hansa import openapi petstore.yaml --base-path /pets/v1 --write > pets.yaml",
		Args:    cobra.ExactArgs(1),
	}
	c.Flags().StringVar(&o.Name, "name", "", "name of the API (default: the title of the document)")
	c.Flags().StringVar(&o.BasePath, "base-path", "", "where the gateway serves the API (default: the path of the first server, or the name)")
	c.Flags().StringVar(&o.Backend, "backend", "", "name of the Backend (default: the name of the API)")
	c.Flags().StringVar(&o.BackendAddress, "backend-address", "", "address of the service, host:port or URL (default: the first server's)")
	c.Flags().StringVar(&environment, "environment", "", "also deploy the API to this environment, always with its latest revision")
	c.Flags().BoolVar(&dropDefinition, "drop-definition", false, "do not keep the document in the API")
	c.Flags().BoolVar(&write, "write", false, "write the resources as files instead of applying them")
	_ = c.RegisterFlagCompletionFunc("environment", func(c *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return s.completeNames(v1.KindEnvironment)(c, nil, prefix)
	})
	flags.add(c)
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, args []string) error {
		o.KeepDefinition = !dropDefinition
		opts, limit, err := flags.options(s)
		if err != nil {
			return err
		}
		objects, report, err := s.importFile(args[0], o)
		if err != nil {
			return err
		}
		if environment != "" {
			objects = append(objects, deployment(objects, environment))
		}
		s.printNotes(report.Notes)
		if write {
			if s.output == outputJSON {
				return wrapOutput(resource.WriteJSON(s.out, objects...))
			}
			return wrapOutput(resource.WriteYAML(s.out, objects...))
		}
		var documents bytes.Buffer
		if err := resource.WriteJSON(&documents, objects...); err != nil {
			return fmt.Errorf("encode resources: %w", err)
		}
		return s.call(ctx, limit, func(ctx context.Context, c *client.Client) error {
			note := s.progress("sending")
			defer note.end()
			out, err := tried(c, flags.dryRun).Apply(ctx, note.reader(bytes.NewReader(documents.Bytes()), int64(documents.Len())), opts)
			note.end()
			if err != nil {
				return withoutLines(err)
			}
			return s.printImport(out, report, opts.Wait)
		})
	})
	return c
}

// importFile makes resources of a document.
func (s *session) importFile(name string, o openapi.Options) ([]*v1.Object, *openapi.Report, error) {
	in, _, err := s.open(name)
	if err != nil {
		return nil, nil, err
	}
	defer in.Close()
	doc, err := io.ReadAll(io.LimitReader(in, maxInput))
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", name, err)
	}
	objects, report, err := openapi.Import(doc, o)
	if err != nil {
		return nil, nil, withExit(ExitInvalid, fmt.Errorf("%s: %w", name, err))
	}
	return objects, report, nil
}

// deployment deploys the API among the objects.
func deployment(objects []*v1.Object, environment string) *v1.Object {
	api := ""
	for _, o := range objects {
		if o.Kind == v1.KindAPI {
			api = o.Metadata.Name
		}
	}
	return &v1.Object{
		APIVersion: v1.APIVersion, Kind: v1.KindDeployment, Metadata: v1.Metadata{Name: api + "-" + environment},
		Spec: &v1.DeploymentSpec{API: api, Environment: environment},
	}
}

// withoutLines takes the lines out of faults: they are those of what was sent, which nobody can see.
func withoutLines(err error) error {
	if e, ok := errors.AsType[*client.Error](err); ok {
		for i := range e.Faults {
			e.Faults[i].Line, e.Faults[i].Column = 0, 0
		}
	}
	return err
}

// printNotes tells people what was not carried over.
func (s *session) printNotes(notes []openapi.Note) {
	if s.output == outputJSON {
		return // they are part of the result
	}
	for i, n := range notes {
		if i == shownNotes {
			fmt.Fprintf(s.err, "and %d more notes; -o json has all of them\n", len(notes)-i)
			return
		}
		if n.Where != "" {
			fmt.Fprintf(s.err, "%s: ", oneLine(n.Where))
		}
		fmt.Fprintf(s.err, "%s (%s)\n", oneLine(n.Message), n.Code)
	}
}

func (s *session) printImport(out v1.ApplyResult, report *openapi.Report, wait v1.Duration) error {
	if s.output == outputTable {
		fmt.Fprintf(s.err, "%d of %d operations are served\n", report.Operations, report.Described)
		return s.printChanges(out, wait)
	}
	result := struct {
		v1.ApplyResult
		Operations int            `json:"operations"`
		Described  int            `json:"described"`
		Notes      []openapi.Note `json:"notes"`
	}{out, report.Operations, report.Described, report.Notes}
	if err := s.print(result, nil); err != nil {
		return err
	}
	return waitError(out, wait)
}
