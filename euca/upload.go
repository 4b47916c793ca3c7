package euca

import (
	"bytes"
	"context"

	"mallee/bundle"
)

// upload puts a bundle's parts into the object store. A part is held in memory
// until it is whole, so that nothing half-made is ever sent.
type upload struct {
	client         *Client
	bucket, folder string
}

func (u *upload) part(ctx context.Context, name string) (bundle.PartWriter, error) {
	return &partUpload{ctx: ctx, upload: u, key: u.folder + name}, nil
}

type partUpload struct {
	bytes.Buffer
	ctx    context.Context
	upload *upload
	key    string
}

// Close sends the part, and returns when it is stored.
func (p *partUpload) Close() error {
	return p.upload.client.PutObject(p.ctx, p.upload.bucket, p.key, execRead, p.Bytes())
}

// CloseWithError drops the part: nothing of it was sent.
func (p *partUpload) CloseWithError(error) error { return nil }
