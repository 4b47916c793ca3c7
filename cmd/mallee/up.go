package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/spf13/cobra"

	"mallee/euca"
)

// stopTime is how long requests under way may take when the program ends.
const stopTime = 5 * time.Second

func upCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run the cloud in this process; SIGTERM ends it and leaves the guests running",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return up(cmd) },
	}
	f := cmd.Flags()
	f.String("listen", "127.0.0.1:8773", "address of every service")
	f.String("accel", "auto", "how guests run: auto, kvm or tcg; auto takes KVM where a guest has proven that it works")
	f.Int("vcpus", 0, "virtual processors offered to instances (default 16 for each of the host's)")
	f.Int("memory", 0, "memory offered to instances, in MiB (default the host's less 1 GiB)")
	f.Int("disk", 0, "disk offered to instances, in GiB (default the size of the folder's file system)")
	f.String("public", "", "range of the instances' public addresses, within 127.0.0.0/8 (default a /16 of the cloud's own)")
	f.String("ceph-conf", "", "configuration file of the Ceph cluster that volumes are in (default they are in the cloud's folder)")
	f.String("ceph-pool", "", "RBD pool that volumes are in; the same at each start")
	f.String("ceph-user", "admin", "user of Ceph, without \"client.\"")
	return cmd
}

// up takes the folder and the address, wires the rooms, and serves until told
// to end.
func up(cmd *cobra.Command) error {
	settings, err := settingsOf(cmd)
	if err != nil {
		return err
	}
	lock, err := settings.folder.Lock()
	if err != nil {
		return err
	}
	defer lock.Release()
	listener, err := net.Listen("tcp", settings.listen)
	if err != nil {
		return fmt.Errorf("--listen %s: %w", settings.listen, err)
	}
	defer listener.Close()
	holder := euca.Holder{PID: os.Getpid(), Listen: reachable(listener.Addr())}
	if err := lock.Tell(holder); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
	house, err := build(cmd.Context(), settings, holder.Endpoint(), log)
	if err != nil {
		return err
	}
	defer func() {
		if err := house.close(); err != nil {
			log.Error("closing", "err", err)
		}
	}()
	fmt.Fprintf(cmd.OutOrStdout(), "Mallee is up at %s. To use it: . %s\n", holder.Endpoint(), settings.folder.Path("eucarc"))
	return house.serve(cmd.Context(), listener)
}

// reachable is the address at which this host reaches the listener: one that
// listens everywhere is told to nobody as 0.0.0.0.
func reachable(listen net.Addr) string {
	at, err := netip.ParseAddrPort(listen.String())
	if err != nil || !at.Addr().IsUnspecified() {
		return listen.String()
	}
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), at.Port()).String()
}

// serve requests, and run the loops and the node, until ctx ends.
func (h *house) serve(ctx context.Context, listener net.Listener) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	h.run(ctx)
	server := &http.Server{
		Handler:           h.front,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	var err error
	select {
	case <-ctx.Done():
	case err = <-served:
	case <-h.store.Done():
		err = h.store.Err()
	}
	stop()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	return errors.Join(err, server.Shutdown(end))
}
