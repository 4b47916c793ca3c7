package bundle

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"mallee/cloud"
)

// ErrManifestChanged tells that a manifest is not the one that was registered.
var ErrManifestChanged = errors.New("the manifest was changed after the image was registered")

// Source unpacks registered images from the object store that holds their
// bundles.
type Source struct {
	// Objects opens an object of the store; size is its length in bytes.
	Objects interface {
		Open(ctx context.Context, bucket, key string) (body io.ReadCloser, size int64, err error)
	}
	Key *rsa.PrivateKey // the cloud's
}

// damages are the errors that come again whenever the bundle is read.
var damages = []error{
	ErrManifestChanged, ErrManifest, ErrKey, ErrShortPart, ErrLongPart, ErrPartDigest, ErrBundledSize,
	ErrPadding, ErrGzip, ErrTar, ErrBomb, ErrImageSize, ErrDigest, fs.ErrNotExist,
}

// damagedError is one of the damages, and cloud.ErrDamaged too.
type damagedError struct{ error }

func (e damagedError) Unwrap() []error { return []error{e.error, cloud.ErrDamaged} }

// Unpack writes the image to dst, as the function Unpack does, after making
// sure that its manifest is still the one that was registered. An error is
// cloud.ErrDamaged where it would come again.
func (s *Source) Unpack(ctx context.Context, image cloud.ImageRef, dst io.Writer, progress func(done, total int64)) error {
	err := s.unpack(ctx, image, dst, progress)
	for _, damage := range damages {
		if errors.Is(err, damage) {
			return damagedError{err}
		}
	}
	return err
}

func (s *Source) unpack(ctx context.Context, image cloud.ImageRef, dst io.Writer, progress func(done, total int64)) error {
	bucket, key, ok := strings.Cut(image.Location, "/")
	if !ok {
		return fmt.Errorf("unpack bundle: the location %q has no bucket", image.Location)
	}
	data, err := s.manifest(ctx, bucket, key)
	if err != nil {
		return fmt.Errorf("read manifest %s: %w", image.Location, err)
	}
	if Pin(data) != image.ManifestDigest {
		return fmt.Errorf("%s: %w", image.Location, ErrManifestChanged)
	}
	m, err := ParseManifest(data)
	if err != nil {
		return fmt.Errorf("read manifest %s: %w", image.Location, err)
	}
	secret, iv, err := m.Keys(s.Key)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", image.Location, err)
	}
	open := func(ctx context.Context, part Part) (io.ReadCloser, error) {
		body, _, err := s.Objects.Open(ctx, bucket, path.Join(path.Dir(key), part.Name))
		return body, err
	}
	return Unpack(ctx, m, secret, iv, open, dst, progress)
}

func (s *Source) manifest(ctx context.Context, bucket, key string) ([]byte, error) {
	body, size, err := s.Objects.Open(ctx, bucket, key)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	if size > MaxManifestSize {
		return nil, fmt.Errorf("%d bytes are more than a manifest may have, %d", size, MaxManifestSize)
	}
	return io.ReadAll(io.LimitReader(body, MaxManifestSize))
}
