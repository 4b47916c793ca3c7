package iam

import (
	"encoding/base32"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// kind is one of the nouns that have a name in an account.
type kind[T any] struct {
	noun      string // as ARNs and messages have it
	prefix    string // of ids
	longest   int    // name
	table     state.Table[string, T]
	byName    state.Index[string, T]
	byAccount state.Index[cloud.AccountID, T]
	of        func(*T) *cloud.Entity
}

var (
	users    = kind[cloud.User]{"user", "AIDA", 64, state.Users, state.UsersByName, state.UsersByAccount, func(u *cloud.User) *cloud.Entity { return &u.Entity }}
	groups   = kind[cloud.UserGroup]{"group", "AGPA", 128, state.UserGroups, state.UserGroupsByName, state.UserGroupsByAccount, func(g *cloud.UserGroup) *cloud.Entity { return &g.Entity }}
	roles    = kind[cloud.Role]{"role", "AROA", 64, state.Roles, state.RolesByName, state.RolesByAccount, func(r *cloud.Role) *cloud.Entity { return &r.Entity }}
	profiles = kind[cloud.InstanceProfile]{"instance-profile", "AIPA", 128, state.InstanceProfiles, state.InstanceProfilesByName, state.InstanceProfilesByAccount, func(p *cloud.InstanceProfile) *cloud.Entity { return &p.Entity }}
	policies = kind[cloud.ManagedPolicy]{"policy", "ANPA", 128, state.ManagedPolicies, state.ManagedPoliciesByName, state.ManagedPoliciesByAccount, func(p *cloud.ManagedPolicy) *cloud.Entity { return &p.Entity }}
	servers  = kind[cloud.ServerCertificate]{"server-certificate", "ASCA", 128, state.ServerCertificates, state.ServerCertificatesByName, state.ServerCertificatesByAccount, func(c *cloud.ServerCertificate) *cloud.Entity { return &c.Entity }}
)

// find by name, whose case doesn't count.
func (k kind[T]) find(r state.Reader, account cloud.AccountID, name string) (*T, error) {
	for v := range k.byName.By(r, state.EntityKey(account, name)) {
		return v, nil
	}
	return nil, noSuch(k.noun, name)
}

// arn of one by its name: with its path, where it is there.
func (k kind[T]) arn(r state.Reader, account cloud.AccountID, name string) string {
	if v, err := k.find(r, account, name); err == nil {
		e := k.of(v)
		return arn(account, k.noun, e.Path, e.Name)
	}
	return arn(account, k.noun, "/", wire.Shorten(name))
}

// arnOf one that is there.
func (k kind[T]) arnOf(v *T) string {
	e := k.of(v)
	return arn(e.Account, k.noun, e.Path, e.Name)
}

// guardName is the kind of the guards that keep two at once from one name.
func (k kind[T]) guardName() string { return "iam-" + k.noun }

// entity of a new one, whose name is claimed.
func (k kind[T]) entity(c *call, name, path string, tags []tag) (cloud.Entity, error) {
	e := cloud.Entity{Account: c.account, Name: name, Path: path, CreatedAt: c.Now()}
	if e.Path == "" {
		e.Path = "/"
	}
	if err := k.check(name, e.Path); err != nil {
		return e, err
	}
	var err error
	if e.Tags, err = tagMap(nil, tags); err != nil {
		return e, err
	}
	if e.ID, err = c.newID(k.prefix); err != nil {
		return e, err
	}
	return e, k.claim(c.tx, e)
}

func (k kind[T]) claim(tx *state.Tx, e cloud.Entity) error {
	if _, err := k.find(tx, e.Account, e.Name); err == nil {
		return exists(k.noun, e.Name)
	}
	if tx.Claim(k.guardName(), state.EntityKey(e.Account, e.Name), e.ID) != nil {
		return exists(k.noun, e.Name)
	}
	return nil
}

// rename, and move to another path; what is empty stays.
func (k kind[T]) rename(c *call, v *T, name, path string) error {
	was := *k.of(v)
	e := was
	if name != "" {
		e.Name = name
	}
	if path != "" {
		e.Path = path
	}
	if err := k.check(e.Name, e.Path); err != nil {
		return err
	}
	if !strings.EqualFold(e.Name, was.Name) {
		if err := k.claim(c.tx, e); err != nil {
			return err
		}
		c.tx.Release(k.guardName(), state.EntityKey(was.Account, was.Name))
	}
	k.edit(c, v, func(v *T) { *k.of(v) = e })
	return nil
}

func (k kind[T]) edit(c *call, v *T, change func(*T)) { k.table.Edit(c.tx, k.of(v).ID, change) }

func (k kind[T]) remove(c *call, v *T) {
	e := k.of(v)
	c.tx.Release(k.guardName(), state.EntityKey(e.Account, e.Name))
	k.table.Delete(c.tx, e.ID)
}

// under a path, sorted by name.
func (k kind[T]) under(r state.Reader, account cloud.AccountID, prefix string) (list []*T) {
	for v := range k.byAccount.By(r, account) {
		if strings.HasPrefix(k.of(v).Path, prefix) {
			list = append(list, v)
		}
	}
	slices.SortFunc(list, func(a, b *T) int { return strings.Compare(k.key(a), k.key(b)) })
	return list
}

// key that lists are sorted and continued by.
func (k kind[T]) key(v *T) string { return strings.ToLower(k.of(v).Name) }

var (
	nameForm = regexp.MustCompile(`^[A-Za-z0-9_+=,.@-]+$`)
	pathForm = regexp.MustCompile(`^/([!-~]*/)?$`)
)

func (k kind[T]) check(name, path string) error {
	if err := checkName(k.noun, name, k.longest); err != nil {
		return err
	}
	if !pathForm.MatchString(path) || len(path) > 512 {
		return invalid("Path", path, "It must begin and end with / and have at most 512 printable characters.")
	}
	return nil
}

func checkName(noun, name string, longest int) error {
	if !nameForm.MatchString(name) || len(name) > longest {
		return invalid("name of the "+noun, name, "It must have 1 to %d letters, digits and characters of _+=,.@-.", longest)
	}
	return nil
}

// newID draws an id of AWS's form: four letters that tell the kind, and 17 more,
// 21 in all; an access key has 20.
func (s *IAM) newID(prefix string) (string, error) {
	var raw [11]byte
	if _, err := io.ReadFull(s.Rand, raw[:]); err != nil {
		return "", fmt.Errorf("draw an id: %w", err)
	}
	return prefix + base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(raw[:])[:17], nil
}
