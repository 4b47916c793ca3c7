package ec2

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"mallee/cloud"
	"mallee/wire"
)

// consoleTail is how much of a console's end is shown, in bytes.
const consoleTail = 64 << 10

type consoleInput struct {
	common
	InstanceID string `wire:"InstanceId,required"`
	Latest     bool   // it always is
}

type consoleReply struct {
	InstanceID string     `xml:"instanceId"`
	Timestamp  *wire.Time `xml:"timestamp"`
	Output     string     `xml:"output"` // base64
}

// getConsoleOutput reads the console from the instance's node. One that has
// none yet, or whose node has given it back, is empty.
func getConsoleOutput(c *call, in *consoleInput) (*consoleReply, error) {
	i, err := c.instance(in.InstanceID)
	if err != nil {
		return nil, err
	}
	if in.DryRun {
		return nil, nil
	}
	tail, err := c.consoleTail(i.ID)
	if err != nil {
		return nil, err
	}
	return &consoleReply{string(i.ID), wire.At(c.Now()), base64.StdEncoding.EncodeToString(tail)}, nil
}

func (c *call) consoleTail(id cloud.InstanceID) ([]byte, error) {
	console, err := c.Console.Console(c.ctx, id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the console of %s: %w", id, err)
	}
	defer console.Close() // only read
	end, err := console.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = console.Seek(max(end-consoleTail, 0), io.SeekStart)
	}
	if err != nil {
		return nil, fmt.Errorf("find the end of the console of %s: %w", id, err)
	}
	tail, err := io.ReadAll(io.LimitReader(console, consoleTail))
	if err != nil {
		return nil, fmt.Errorf("read the console of %s: %w", id, err)
	}
	return tail, nil
}
