package euca

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"mallee/hypervisor"
	"mallee/hypervisor/qemu"
)

const (
	// stopTime is how long the program may take to end.
	stopTime = 30 * time.Second
	// shutdownTime is how long guests may take to power off when asked.
	shutdownTime = 30 * time.Second
)

func downCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Power the guests off and end the cloud; the next `mallee up` starts them again",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return down(cmd) },
	}
	cmd.Flags().Bool("destroy", false, "remove the cloud's folder too: instances, images, objects, accounts, everything")
	cmd.Flags().Bool("yes", false, "don't ask before destroying")
	return cmd
}

func down(cmd *cobra.Command) error {
	folder, err := FolderOf(cmd)
	if err != nil {
		return err
	}
	destroy, _ := cmd.Flags().GetBool("destroy")
	yes, _ := cmd.Flags().GetBool("yes")
	if _, err := os.Stat(folder.Path("lock")); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no cloud in %s", folder)
	}
	if destroy && !yes && !confirmed(cmd, folder) {
		return errors.New("nothing was done")
	}
	if err := stop(cmd.Context(), folder); err != nil {
		return err
	}
	lock, err := folder.Lock() // nobody brings it up meanwhile
	if err != nil {
		return err
	}
	defer lock.Release()
	show := newProgress(cmd.ErrOrStderr())
	defer show.end()
	if err := powerOff(cmd.Context(), folder, destroy, show); err != nil {
		return err
	}
	if !destroy {
		return nil
	}
	if c, err := folder.Ceph(); err != nil {
		return err
	} else if c != (Ceph{}) {
		show.show(fmt.Sprintf("kept the volumes in Ceph's pool %s, namespace %s: remove them there", c.Pool, c.Namespace), 0, 0)
	}
	show.show("remove "+string(folder), 0, 0)
	kept, err := folder.Destroy()
	if err == nil && kept {
		show.show("kept "+string(folder)+", which holds files that are not the cloud's", 0, 0)
	}
	return err
}

func confirmed(cmd *cobra.Command, folder Folder) bool {
	fmt.Fprintf(cmd.ErrOrStderr(), "Remove %s, with every instance, image and object in it? Type yes: ", folder)
	answer, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	return strings.TrimSpace(answer) == "yes"
}

// stop the program that runs the cloud, if there is one, and wait until it has ended.
func stop(ctx context.Context, folder Folder) error {
	holder, err := folder.Holder()
	if errors.Is(err, ErrNotRunning) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := syscall.Kill(holder.PID, syscall.SIGTERM); err != nil {
		return fmt.Errorf("end process %d: %w", holder.PID, err)
	}
	ctx, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	err = poll(ctx, func() bool {
		_, err := folder.Holder()
		return errors.Is(err, ErrNotRunning)
	})
	if err != nil {
		return fmt.Errorf("process %d has not ended: %w", holder.PID, err)
	}
	return nil
}

// powerOff the guests: they are asked to, and those that don't obey in time are
// ended. At once does not ask.
func powerOff(ctx context.Context, folder Folder, atOnce bool, show *progress) error {
	hv, err := qemu.Open(qemu.Options{Accel: qemu.TCG}) // it starts nothing
	if err != nil {
		return err
	}
	defer hv.Close()
	dirs, err := filepath.Glob(folder.Path("node", "machines", "*"))
	if err != nil {
		return err
	}
	if !atOnce {
		askAll(ctx, hv, dirs, show)
	}
	var failed []error
	for _, dir := range dirs {
		if err := hv.Kill(ctx, dir); err != nil {
			failed = append(failed, fmt.Errorf("end %s: %w", filepath.Base(dir), err))
		}
	}
	return errors.Join(failed...)
}

// askAll guests to power off, and wait until they have, or their time is over.
// Should this program die meanwhile, they are off all the same, and are not
// taken for guests that powered themselves off, which would end their instances.
func askAll(ctx context.Context, hv *qemu.Hypervisor, dirs []string, show *progress) {
	running := func(dir string) bool {
		status, err := hv.Observe(ctx, dir)
		return err == nil && status == hypervisor.Running
	}
	for _, dir := range dirs {
		if running(dir) {
			hv.PowerOff(ctx, dir) // one that can't be asked is ended
		}
	}
	ctx, cancel := context.WithTimeout(ctx, shutdownTime)
	defer cancel()
	poll(ctx, func() bool {
		left := 0
		for _, dir := range dirs {
			if running(dir) {
				left++
			}
		}
		show.show("power off the guests", int64(len(dirs)-left), int64(len(dirs)))
		return left == 0
	})
}

// poll until done is true or ctx ends.
func poll(ctx context.Context, done func() bool) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}
