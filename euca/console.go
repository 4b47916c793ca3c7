package euca

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"mallee/hypervisor/qemu"
)

const (
	// escapeKey ends mallee console: Ctrl-], as telnet's and virsh's.
	escapeKey = 0x1d
	// consoleShown is how much of what was said before is shown, in bytes.
	consoleShown = 8 << 10
)

// consoleCommand is for who may use the cloud's folder, on its machine
// (docs/adr/0021-console-by-the-folder.md). It needs no `mallee up`.
func consoleCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "console INSTANCE",
		Short: "Sit at an instance's serial console; Ctrl-] leaves it. Others may sit there too",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			folder, err := FolderOf(cmd)
			if err != nil {
				return err
			}
			serial, err := openConsole(folder, args[0])
			if err != nil {
				return err
			}
			restore, err := rawTerminal(cmd.InOrStdin())
			if err != nil {
				return err
			}
			defer restore()
			fmt.Fprintf(cmd.ErrOrStderr(), "The serial console of %s. Ctrl-] leaves it.\r\n", args[0])
			err = sit(cmd.Context(), serial, cmd.InOrStdin(), cmd.OutOrStdout())
			fmt.Fprint(cmd.ErrOrStderr(), "\r\n")
			return err
		},
	}
}

func openConsole(folder Folder, id string) (*qemu.Serial, error) {
	dir, err := machineFolder(folder, id)
	if err != nil {
		return nil, err
	}
	serial, err := qemu.OpenSerial(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no instance %s runs on this machine, by the cloud's folder %s", id, folder)
	}
	return serial, err
}

// rawTerminal hands every key on as it is pressed, if in is a terminal.
func rawTerminal(in io.Reader) (restore func(), err error) {
	file, ok := in.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return func() {}, nil
	}
	was, err := term.MakeRaw(int(file.Fd()))
	if err != nil {
		return nil, fmt.Errorf("hand keys on as they are pressed: %w", err)
	}
	return func() { term.Restore(int(file.Fd()), was) }, nil
}

// sit at the console until the escape key, the end of the machine or of ctx. Input
// that ends is no reason to leave: there may be more to see.
func sit(ctx context.Context, serial *qemu.Serial, in io.Reader, out io.Writer) error {
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	keys := make(chan []byte)
	go readKeys(ctx, in, keys, func() { leave(errLeft) })
	go func() {
		if err := serial.Type(ctx, keys); err != nil {
			leave(err)
		}
	}()
	err := serial.Follow(ctx, out, consoleShown)
	if errors.Is(err, errLeft) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

var errLeft = errors.New("left")

// readKeys until the input ends or the escape key is pressed. It may be left
// behind, waiting for a key, when the program ends.
func readKeys(ctx context.Context, in io.Reader, keys chan<- []byte, escape func()) {
	defer close(keys)
	buf := make([]byte, 1024)
	for {
		n, err := in.Read(buf)
		pressed, _, escaped := bytes.Cut(buf[:n], []byte{escapeKey})
		if len(pressed) > 0 {
			select {
			case keys <- bytes.Clone(pressed):
			case <-ctx.Done():
				return
			}
		}
		if escaped {
			escape()
		}
		if escaped || err != nil {
			return
		}
	}
}
