// Package euca is the command line: `mallee`, its subcommands, and the
// euca-commands, which Eucalyptus's users know.
//
// A subcommand finds the cloud by its folder (--data): who runs it and where it
// listens stand in DIR/lock, how to sign requests in DIR/eucarc.
//
// Results go to standard output, for people or, with --output json, for
// programs; progress and notes go to standard error. An error is one line,
// `mallee: …`, and exit status 1.
//
// # The euca-commands
//
// `mallee euca-NAME …` and, by a link of that name, `euca-NAME …` behave as
// euca2ools 3 do: the same options, and lines of TAB-separated fields that begin
// with a record's name. They work with any cloud that speaks EC2's protocol.
// Which one, they find as euca2ools do: by options, then the environment, then
// the configuration files (a region that --region names goes before the
// environment); where none of these names a cloud, it is the one of --data.
// An error is `euca-NAME: error (Code): message`, or without a code where
// it isn't the cloud's.
//
// # How to add one
//
// Write a function that returns []command, list it in eucaCommands, and describe
// each command in a line or a few:
//
//	{
//		name: "create-image", short: "Make an image of an EBS-backed instance",
//		takes: "INSTANCE", as: "InstanceId",
//		options: []option{text("n,name", "NAME", "name of the image").to("Name").required()},
//		run: calling("CreateImage", printImageID),
//	}
//
// takes shows the arguments and bounds their number; as and to name the
// request's parameters that arguments and options become (NAME.1, NAME.2 of
// several). calling sends the request and hands the reply to a function that
// prints its lines; asking is that with a function before, which checks options
// against each other (session.oneOf, together) and completes session.params.
//
// A command that does more has a run of its own: func(*session) error, with
// session.args, text, list and given for what was typed, session.access for what
// is known of the cloud (certificates, account), session.cloud() for a *Client
// (Call, PutObject, GetObject, …; "s3" in the command's url says that -U is the
// object store's), and newProgress(session.said) for long work. Its answer goes
// through session.show, so that it has a JSON form too, and lines are written
// by session.line. A *ServiceError that it returns, however wrapped, is shown
// in euca2ools' form.
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
	root.AddCommand(up, downCommand(), doctorCommand(), imageCommand(), peerCommand(), consoleCommand(), sshCommand(), versionCommand(), listCommand(), installCommand())
	for _, c := range eucaCommands() {
		root.AddCommand(c.cobra())
	}
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
	root.SetArgs(commandLine(root, os.Args))
	if cmd, err := root.ExecuteContextC(ctx); err != nil {
		fmt.Fprintln(os.Stderr, complaint(cmd, err))
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
