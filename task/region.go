package task

import (
	"context"
	"errors"
	"fmt"

	"mallee/cloud"
	"mallee/peer"
	"mallee/snapshot"
)

// Peers are the other clouds that images are copied from.
type Peers interface {
	// Blocks of a snapshot of another region.
	Blocks(ctx context.Context, region, snapshot string, p peer.Passage) error
}

// fetching is how many blocks of another cloud are on their way at once.
const fetching = 8

// copyRegion makes contents of the snapshots of another region's image.
func (r *run) copyRegion(ctx context.Context) (cloud.TaskResult, error) {
	var made cloud.TaskResult
	region := r.task.Params[cloud.ParamRegion]
	for n, f := range r.task.Sources {
		s := r.stage("copying "+f.Key+" of "+region, n*99/len(r.task.Sources), (n+1)*99/len(r.task.Sources))
		content, err := r.copySnapshot(ctx, region, f, n, s)
		if err != nil {
			return cloud.TaskResult{}, fmt.Errorf("copy snapshot %s of %s: %w", f.Key, region, err)
		}
		made.Contents, made.Sizes = append(made.Contents, content), append(made.Sizes, content.Size)
	}
	return made, nil
}

func (r *run) copySnapshot(ctx context.Context, region string, f cloud.DiskFile, n int, s stage) (_ cloud.Content, err error) {
	size := int64(f.VolumeGiB) << 30
	if size <= 0 || size > r.limits().VirtualSize {
		return cloud.Content{}, &SourceError{fmt.Errorf("its volume has %d GiB, and at most %d are taken", f.VolumeGiB, r.limits().VirtualSize>>30)}
	}
	w, err := r.Contents.Write(ctx, journalName(r.task.ID, n), size, nil)
	if err != nil {
		return cloud.Content{}, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	err = r.Peers.Blocks(ctx, region, f.Key, peer.Passage{
		AtOnce: fetching,
		Begin: func(_ context.Context, gib int64) error {
			if gib<<30 > size {
				return fmt.Errorf("its volume has %d GiB, and the image says %d", gib, f.VolumeGiB)
			}
			return nil
		},
		Take: func(ctx context.Context, index int64, block []byte, _ [32]byte) error {
			if index < 0 || index >= size/snapshot.BlockSize {
				return fmt.Errorf("it is beyond the volume's %d GiB", f.VolumeGiB)
			}
			s.progress(index*snapshot.BlockSize, size)
			return w.WriteAt(ctx, block, index*snapshot.BlockSize)
		},
	})
	if err != nil {
		return cloud.Content{}, &SourceError{err}
	}
	return w.Commit(ctx)
}
