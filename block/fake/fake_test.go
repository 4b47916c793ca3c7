package fake_test

import (
	"fmt"
	"testing"

	"mallee/block"
	"mallee/block/blocktest"
	"mallee/block/fake"
)

func TestConformance(t *testing.T) {
	blocktest.Run(t, func(*testing.T) blocktest.Store {
		bases := map[string][]byte{}
		disks := fake.New(func(path string) ([]byte, error) {
			if base, ok := bases[path]; ok {
				return base, nil
			}
			return nil, fmt.Errorf("no base %s", path)
		})
		return blocktest.Store{
			Open: func(*testing.T) block.Disks { return disks },
			Base: func(_ *testing.T, content []byte) string {
				path := fmt.Sprintf("/base/%d", len(bases))
				bases[path] = content
				return path
			},
			Write: func(t *testing.T, d block.Disk, _ block.Attachment, offset int64, data []byte) {
				if err := disks.Write(d.Name, offset, data); err != nil {
					t.Fatal(err)
				}
			},
			Read: func(t *testing.T, d block.Disk, _ block.Attachment, offset int64, length int) []byte {
				data := make([]byte, length)
				if err := disks.Read(d.Name, offset, data); err != nil {
					t.Fatal(err)
				}
				return data
			},
			Source: func(_ *testing.T, content []byte) block.Source {
				source := block.Source{Socket: fmt.Sprintf("/s/%d", len(bases)), Export: "e", Size: blocktest.MiB}
				bases[fake.SourceBase(source)] = content
				return source
			},
			Fill: func(t *testing.T, d block.Disk, _ block.Attachment) {
				if err := disks.Fill(d.Name); err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}

func TestWritesStayInside(t *testing.T) {
	disks := fake.New(fake.Anything)
	if _, err := disks.Ensure(t.Context(), block.Disk{Name: "d", Base: "/any", Size: 1024}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		offset int64
		length int
		ok     bool
	}{
		{0, 1024, true}, {512, 512, true}, {512, 1024, false}, {-512, 512, false}, {1, 512, false}, {0, 100, false},
	} {
		if err := disks.Write("d", test.offset, make([]byte, test.length)); (err == nil) != test.ok {
			t.Errorf("Write at %d of %d bytes: %v, want ok %t", test.offset, test.length, err, test.ok)
		}
	}
}
