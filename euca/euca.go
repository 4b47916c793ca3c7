// Package euca is the command line: `mallee` and its subcommands.
//
// Every subcommand finds the cloud by its folder (--data): who runs it and
// where it listens stand in DIR/lock, how to sign requests in DIR/eucarc.
//
// Results go to standard output, for people or, with --output json, for
// programs; progress and notes go to standard error. An error is one line,
// `mallee: …`, and exit status 1.
package euca

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Version of the program; set when it is built.
var Version = "dev"

// Command is the root of the command line. Up, which starts the cloud in this
// process, is the binary's own.
func Command(up *cobra.Command) *cobra.Command {
	root := &cobra.Command{
		Use:           "mallee",
		Short:         "A private cloud in one program: EC2, S3, EBS and IAM",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       Version,
	}
	root.PersistentFlags().String("data", "", "the cloud's folder (default "+DefaultFolder()+")")
	root.PersistentFlags().String("output", "text", "how results are printed: text or json")
	root.AddCommand(up, downCommand(), doctorCommand(), imageCommand(), versionCommand())
	return root
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Say which version of Mallee this is",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out, err := printerOf(cmd)
			if err != nil {
				return err
			}
			return out.print(map[string]string{"version": Version}, "mallee "+Version)
		},
	}
}

// Main runs the command line and returns the exit status.
func Main(root *cobra.Command) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "mallee: "+err.Error())
		return 1
	}
	return 0
}

// FolderOf is the folder that --data names.
func FolderOf(cmd *cobra.Command) (Folder, error) {
	path, err := cmd.Flags().GetString("data")
	if err != nil {
		return "", err
	}
	return OpenFolder(path)
}

// printer writes a result as text or as JSON.
type printer struct {
	out  io.Writer
	json bool
}

func printerOf(cmd *cobra.Command) (printer, error) {
	form, err := cmd.Flags().GetString("output")
	if err != nil {
		return printer{}, err
	}
	if form != "text" && form != "json" {
		return printer{}, fmt.Errorf("--output %s: text and json are known", form)
	}
	return printer{cmd.OutOrStdout(), form == "json"}, nil
}

// print v as JSON, or the text that people read.
func (p printer) print(v any, text string) error {
	if !p.json {
		_, err := fmt.Fprintln(p.out, text)
		return err
	}
	return json.NewEncoder(p.out).Encode(v)
}
