package euca

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

// listCommand is `mallee euca-commands`.
func listCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "euca-commands",
		Short: "List the euca-commands, each of which is a subcommand too: mallee euca-NAME",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out, err := printerOf(cmd)
			if err != nil {
				return err
			}
			for _, c := range eucaCommands() {
				line := map[string]string{"name": prefix + c.name, "short": c.short}
				if err := out.print(line, fmt.Sprintf("%-36s %s", prefix+c.name, c.short)); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// installCommand is `mallee install-commands DIR`.
func installCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "install-commands DIR",
		Short: "Make the euca-commands in DIR, as links to this program",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			program, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			out, err := printerOf(cmd)
			if err != nil {
				return err
			}
			made, err := installCommands(args[0], program)
			if err != nil {
				return err
			}
			return out.print(map[string]any{"folder": args[0], "made": made}, fmt.Sprintf("%d commands in %s", made, args[0]))
		},
	}
}

// installCommands makes a link to the program for each command. A link that is
// there already is made anew; what isn't a link is left, and an error. The links
// are relative where the program is beside them, so that the folder may be moved.
func installCommands(dir, program string) (made int, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, fmt.Errorf("make the commands' folder: %w", err)
	}
	if whole, err := filepath.Abs(dir); err == nil && filepath.Dir(program) == whole {
		program = filepath.Base(program)
	}
	for _, c := range eucaCommands() {
		if err := link(program, filepath.Join(dir, prefix+c.name)); err != nil {
			return made, fmt.Errorf("make the command %s: %w", prefix+c.name, err)
		}
		made++
	}
	return made, nil
}

func link(program, path string) error {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return os.Symlink(program, path)
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink == 0:
		return fmt.Errorf("%s exists and is no link; remove it, or choose another folder", path)
	}
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(program, fresh); err != nil {
		return err
	}
	return os.Rename(fresh, path) // never a moment without the command
}
