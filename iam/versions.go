package iam

import (
	"slices"

	"mallee/cloud"
	"mallee/wire"
)

type aVersion struct {
	Document   string `xml:",omitempty"` // escaped as in an URL
	VersionID  string `xml:"VersionId"`
	Default    bool   `xml:"IsDefaultVersion"`
	CreateDate *wire.Time
}

func versionReply(p *cloud.ManagedPolicy, v cloud.PolicyVersion) aVersion {
	return aVersion{"", versionName(v.Number), v.Number == p.Default, wire.At(v.CreatedAt)}
}

type createVersionInput struct {
	ofPolicy
	PolicyDocument string `wire:"PolicyDocument,required"`
	SetAsDefault   bool
}

type oneVersion struct{ PolicyVersion aVersion }

func createVersion(c *call, in *createVersionInput) (*oneVersion, error) {
	p, err := in.own(c)
	if err != nil {
		return nil, err
	}
	if len(p.Versions) >= maxVersions {
		return nil, wire.Errorf("LimitExceeded", "A managed policy can have up to %d versions. Before you create a new version, you must delete an existing version.", maxVersions)
	}
	if err := checkManaged(in.PolicyDocument); err != nil {
		return nil, err
	}
	v := cloud.PolicyVersion{Number: p.Last + 1, Document: in.PolicyDocument, CreatedAt: c.Now()}
	policies.edit(c, p, func(p *cloud.ManagedPolicy) {
		p.Versions, p.Last, p.UpdatedAt = append(p.Versions, v), v.Number, v.CreatedAt
		if in.SetAsDefault {
			p.Default = v.Number
		}
	})
	return &oneVersion{aVersion{"", versionName(v.Number), in.SetAsDefault, wire.At(v.CreatedAt)}}, nil
}

// ofVersion is embedded by the inputs that name a version.
type ofVersion struct {
	ofPolicy
	VersionID string `wire:"VersionId,required"`
}

type getVersionInput struct{ ofVersion }

func getVersion(c *call, in *getVersionInput) (*oneVersion, error) {
	p, err := in.find(c)
	if err != nil {
		return nil, err
	}
	v := versionOf(p, number(in.VersionID))
	if v.Number == 0 {
		return nil, noVersion(p, in.VersionID)
	}
	out := versionReply(p, v)
	out.Document = escaped(v.Document)
	return &oneVersion{out}, nil
}

type listVersionsInput struct {
	ofPolicy
	paged
}

type listVersionsReply struct {
	Versions []aVersion `xml:"Versions>member"`
	page
}

// listVersions tells the newest first.
func listVersions(c *call, in *listVersionsInput) (*listVersionsReply, error) {
	p, err := in.find(c)
	if err != nil {
		return nil, err
	}
	newest := slices.Clone(p.Versions)
	slices.Reverse(newest)
	all := each(newest, func(v cloud.PolicyVersion) aVersion { return versionReply(p, v) })
	return &listVersionsReply{Versions: all}, nil // five at most: one page
}

type deleteVersionInput struct{ ofVersion }

func deleteVersion(c *call, in *deleteVersionInput) (*none, error) {
	p, err := in.own(c)
	if err != nil {
		return nil, err
	}
	n := number(in.VersionID)
	switch {
	case versionOf(p, n).Number == 0:
		return nil, noVersion(p, in.VersionID)
	case n == p.Default:
		return nil, conflict("Cannot delete the default version of a policy.")
	}
	policies.edit(c, p, func(p *cloud.ManagedPolicy) {
		p.Versions = slices.DeleteFunc(p.Versions, func(v cloud.PolicyVersion) bool { return v.Number == n })
		p.UpdatedAt = c.Now()
	})
	return &none{}, nil
}

type setDefaultInput struct{ ofVersion }

func setDefaultVersion(c *call, in *setDefaultInput) (*none, error) {
	p, err := in.own(c)
	if err != nil {
		return nil, err
	}
	n := number(in.VersionID)
	if versionOf(p, n).Number == 0 {
		return nil, noVersion(p, in.VersionID)
	}
	policies.edit(c, p, func(p *cloud.ManagedPolicy) { p.Default, p.UpdatedAt = n, c.Now() })
	return &none{}, nil
}
