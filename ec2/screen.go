package ec2

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

type screenshotInput struct {
	common
	InstanceID string `wire:"InstanceId,required"`
	WakeUp     bool
}

type screenshotReply struct {
	InstanceID string `xml:"instanceId"`
	Picture    string `xml:"imageData"` // base64
}

// getConsoleScreenshot takes a picture of the instance's screen now. It is a PNG
// where EC2 sends JPEG: a screen is mostly text, which PNG keeps sharp, and what
// shows pictures goes by their first bytes and not by what their files are called.
func getConsoleScreenshot(c *call, in *screenshotInput) (*screenshotReply, error) {
	i, err := c.instance(in.InstanceID)
	if err != nil {
		return nil, err
	}
	if err := c.may(c.arn(i.Account, "instance", string(i.ID))); err != nil {
		return nil, err
	}
	if s := c.stateOf(i); s != cloud.Running {
		return nil, noScreen(i, s)
	}
	if in.DryRun {
		return nil, nil
	}
	picture, err := c.Console.Screenshot(c.ctx, i.ID, in.WakeUp)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noScreen(i, "starting again")
	}
	if err != nil {
		return nil, fmt.Errorf("take a screenshot of %s: %w", i.ID, err)
	}
	return &screenshotReply{string(i.ID), base64.StdEncoding.EncodeToString(picture)}, nil
}

func noScreen(i *cloud.Instance, s cloud.InstanceState) error {
	return wire.Errorf("IncorrectInstanceState", "The instance '%s' is not in a state in which it has a screen: it is '%s'.", i.ID, s)
}

type passwordInput struct {
	common
	InstanceID string `wire:"InstanceId,required"`
}

type passwordReply struct {
	InstanceID string     `xml:"instanceId"`
	Timestamp  *wire.Time `xml:"timestamp"`
	Password   string     `xml:"passwordData"` // encrypted, base64
}

// getPasswordData is the administrator's password as the guest has printed it on
// its console, encrypted to the key pair's public key: nobody here can read it.
// Until then, and of what isn't Windows, it is empty.
func getPasswordData(c *call, in *passwordInput) (*passwordReply, error) {
	i, err := c.instance(in.InstanceID)
	if err != nil {
		return nil, err
	}
	if err := c.may(c.arn(i.Account, "instance", string(i.ID))); err != nil {
		return nil, err
	}
	out := &passwordReply{InstanceID: string(i.ID), Timestamp: wire.At(c.Now())}
	if seen, _, ok := state.Observations.Get(c.read, i.ID); ok && seen.Password != "" {
		out.Password, out.Timestamp = seen.Password, wire.At(seen.At)
	}
	return out, nil
}
