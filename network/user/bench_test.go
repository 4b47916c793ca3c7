package user

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"testing"

	"mallee/network"
	"mallee/network/networktest"
)

var mtus = []int{1500, 9001, 65000}

// BenchmarkGuestToGuest moves bytes between two stacks by the switch alone.
func BenchmarkGuestToGuest(b *testing.B) {
	for _, mtu := range mtus {
		b.Run(fmt.Sprint("MTU=", mtu), func(b *testing.B) {
			u := open(b, Options{MTU: mtu})
			defer u.Close()
			from, to := plug(b, u, 1), plug(b, u, 2)
			at := to.Listen(7)
			c, err := from.Dial(b.Context(), netip.AddrPortFrom(to.Addr(), 7))
			if err != nil {
				b.Fatal(err)
			}
			pour(b, c, at)
		})
	}
}

// BenchmarkHostToGuest goes through a public address.
func BenchmarkHostToGuest(b *testing.B) {
	for _, mtu := range mtus {
		b.Run(fmt.Sprint("MTU=", mtu), func(b *testing.B) {
			u := open(b, Options{MTU: mtu})
			defer u.Close()
			g := plug(b, u, 1)
			at := g.Listen(8080)
			c, err := net.Dial("tcp4", endpoint(b, u, networktest.Port(b, "a", 1).ID, "", 8080).String())
			if err != nil {
				b.Fatal(err)
			}
			pour(b, c, at)
		})
	}
}

// BenchmarkEnsure makes and removes a port of a lan of its own.
func BenchmarkEnsure(b *testing.B) {
	u := open(b, Options{})
	defer u.Close()
	p := networktest.Port(b, "a", 1)
	for b.Loop() {
		if _, err := u.Ensure(b.Context(), p); err != nil {
			b.Fatal(err)
		}
		if err := u.Remove(b.Context(), p.ID); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPorts reports what an idle port costs, in one lan and each in its own.
func BenchmarkPorts(b *testing.B) {
	for name, account := range map[string]func(i int) string{
		"one": func(int) string { return "a" },
		"own": func(i int) string { return fmt.Sprint("a", i) },
	} {
		b.Run(name, func(b *testing.B) {
			const ports = 200
			for b.Loop() {
				u := open(b, Options{})
				wishes := make([]network.Port, ports)
				for i := range wishes {
					wishes[i] = networktest.Port(b, "a", byte(i+1))
					wishes[i].ID, wishes[i].Network = fmt.Sprint("i-", i), account(i)
				}
				heap, goroutines := inUse(), runtime.NumGoroutine()
				for _, p := range wishes {
					if _, err := u.Ensure(b.Context(), p); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(inUse()-heap)/ports/1024, "KiB/port")
				b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/ports, "goroutines/port")
				u.Close()
			}
		})
	}
}

// inUse is what the heap and the goroutines' stacks hold.
func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// plug a guest into the n-th port.
func plug(t testing.TB, u *User, n byte) *networktest.Guest {
	t.Helper()
	p := networktest.Port(t, "a", n)
	at, err := u.Ensure(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return networktest.Plug(t, p, at).Configure()
}

func endpoint(t testing.TB, u *User, id, proto string, port uint16) netip.AddrPort {
	t.Helper()
	for _, e := range u.Endpoints(id) {
		if e.Port == port && e.Proto == proto {
			return e.Listen
		}
	}
	t.Fatalf("port %d of %s is not published", port, id)
	return netip.AddrPort{}
}

// pour bytes into c and count them where they come out.
func pour(b *testing.B, c net.Conn, at net.Listener) {
	got, err := at.Accept()
	if err != nil {
		b.Fatal(err)
	}
	const size = 1 << 20
	b.SetBytes(size)
	done := make(chan error, 1)
	b.ResetTimer()
	go func() {
		_, err := io.CopyN(io.Discard, got, int64(b.N)*size)
		done <- err
	}()
	block := make([]byte, size)
	for range b.N {
		if _, err := c.Write(block); err != nil {
			b.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	c.Close()
	got.Close()
}
