package iam

import (
	"mallee/cloud"
	"mallee/policy"
	"mallee/state"
	"mallee/wire"
)

// ofUser is embedded by the inputs that name a user.
type ofUser struct {
	common
	UserName string `wire:"UserName,required"`
}

func (o *ofUser) arn(c *call) string                { return users.arn(c.read, c.account, o.UserName) }
func (o *ofUser) find(c *call) (*cloud.User, error) { return users.find(c.read, c.account, o.UserName) }

func (o *ofUser) tagsOf(c *call) (map[string]string, func(map[string]string), error) {
	u, err := o.find(c)
	return bear(users, c, u, err)
}

// context has the tags of the user, for policies that go by them.
func (o *ofUser) context(c *call) policy.Context { return resourceTags(users, c, o.UserName) }

// resourceTags are what policies know of an entity.
func resourceTags[T any](k kind[T], c *call, name string) policy.Context {
	out := policy.Context{}
	v, err := k.find(c.read, c.account, name)
	if err != nil {
		return out
	}
	for key, value := range k.of(v).Tags {
		out.Set("aws:ResourceTag/"+key, value)
		out.Set("iam:ResourceTag/"+key, value)
	}
	return out
}

// aboutUser is embedded by the inputs that name a user or else mean the caller.
type aboutUser struct {
	common
	UserName string
}

// name of the user that is meant. Whoever has no user must name one.
func (o *aboutUser) name(c *call) string {
	if o.UserName == "" && c.account == c.principal.Account {
		return c.principal.User
	}
	return o.UserName
}

func (o *aboutUser) arn(c *call) string { return users.arn(c.read, c.account, o.name(c)) }

func (o *aboutUser) find(c *call) (*cloud.User, error) {
	name := o.name(c)
	if name == "" {
		return nil, wire.Errorf("ValidationError", "Must specify UserName when calling with non-User credentials")
	}
	return users.find(c.read, c.account, name)
}

// aUser in a reply.
type aUser struct {
	Path, UserName string
	UserID         string `xml:"UserId"`
	Arn            string
	CreateDate     *wire.Time
	Boundary       *aBoundary `xml:"PermissionsBoundary,omitempty"`
	Tags           []tag      `xml:"Tags>member"`
}

type aBoundary struct {
	Type string `xml:"PermissionsBoundaryType"`
	Arn  string `xml:"PermissionsBoundaryArn"`
}

func boundary(arn string) *aBoundary {
	if arn == "" {
		return nil
	}
	return &aBoundary{"Policy", arn}
}

func userReply(u *cloud.User) aUser {
	return aUser{u.Path, u.Name, u.ID, users.arnOf(u), wire.At(u.CreatedAt), boundary(u.Boundary), tagList(u.Tags)}
}

type createUserInput struct {
	ofUser
	tagged
	Path                string
	PermissionsBoundary string
}

func (in *createUserInput) arn(c *call) string {
	path := in.Path
	if path == "" {
		path = "/"
	}
	return arn(c.account, "user", path, wire.Shorten(in.UserName))
}

func (in *createUserInput) context(*call) policy.Context {
	out := policy.Context{}
	if in.PermissionsBoundary != "" {
		out.Set("iam:PermissionsBoundary", in.PermissionsBoundary)
	}
	return out
}

type oneUser struct{ User aUser }

func createUser(c *call, in *createUserInput) (*oneUser, error) {
	e, err := users.entity(c, in.UserName, in.Path, in.Tags)
	if err != nil {
		return nil, err
	}
	u := cloud.User{Entity: e, Grants: cloud.Grants{Boundary: in.PermissionsBoundary}}
	if err := checkBoundary(c, in.PermissionsBoundary); err != nil {
		return nil, err
	}
	state.Users.Put(c.tx, u)
	return &oneUser{userReply(&u)}, c.within("iam:quota-usernumber", len(users.under(c.tx, c.account, "/")))
}

type getUserInput struct{ aboutUser }

func getUser(c *call, in *getUserInput) (*oneUser, error) {
	u, err := in.find(c)
	if err != nil {
		return nil, err
	}
	return &oneUser{userReply(u)}, nil
}

// underPath is embedded by the inputs of actions that list what has paths.
type underPath struct {
	common
	paged
	PathPrefix string
}

func (in *underPath) prefix() string {
	if in.PathPrefix == "" {
		return "/"
	}
	return in.PathPrefix
}

type listUsersInput struct{ underPath }

type listUsersReply struct {
	Users []aUser `xml:"Users>member"`
	page
}

func listUsers(c *call, in *listUsersInput) (*listUsersReply, error) {
	list, p, err := cut(in.paged, users.under(c.read, c.account, in.prefix()), users.key)
	return &listUsersReply{each(list, userReply), p}, err
}

type updateUserInput struct {
	ofUser
	NewUserName, NewPath string
}

// updateUser takes what names its user along: keys and certificates.
func updateUser(c *call, in *updateUserInput) (*none, error) {
	u, err := in.find(c)
	if err != nil {
		return nil, err
	}
	if u.Name == AdminUser && in.NewUserName != "" && in.NewUserName != AdminUser {
		return nil, wire.Errorf("InvalidInput", "The user %s of an account can't be renamed", AdminUser)
	}
	if err := users.rename(c, u, in.NewUserName, in.NewPath); err != nil {
		return nil, err
	}
	if in.NewUserName == "" {
		return &none{}, nil
	}
	for k := range state.AccessKeysByUser.By(c.tx, state.EntityKey(u.Account, u.Name)) {
		state.AccessKeys.Edit(c.tx, k.ID, func(k *cloud.AccessKey) { k.User = in.NewUserName })
	}
	for _, cert := range certificatesOf(c.tx, u) {
		state.Certificates.Edit(c.tx, cert.ID, func(s *cloud.SigningCertificate) { s.User = in.NewUserName })
	}
	return &none{}, nil
}

type deleteUserInput struct{ ofUser }

// deleteUser refuses as long as something of the user's is left, as AWS does.
func deleteUser(c *call, in *deleteUserInput) (*none, error) {
	u, err := in.find(c)
	if err != nil {
		return nil, err
	}
	keys := false
	for range state.AccessKeysByUser.By(c.tx, state.EntityKey(u.Account, u.Name)) {
		keys = true
	}
	switch {
	case u.Name == AdminUser:
		return nil, conflict("The user %s of an account can't be deleted; delete the account", AdminUser)
	case keys:
		return nil, conflict("Cannot delete entity, must delete access keys first.")
	case len(certificatesOf(c.tx, u)) > 0:
		return nil, conflict("Cannot delete entity, must delete signing certificates first.")
	case u.Login != nil:
		return nil, conflict("Cannot delete entity, must delete login profile first.")
	case len(u.Groups) > 0:
		return nil, conflict("Cannot delete entity, must remove users from group first.")
	case len(u.Attached) > 0:
		return nil, conflict("Cannot delete entity, must detach all policies first.")
	case len(u.Inline) > 0:
		return nil, conflict("Cannot delete entity, must delete policies first.")
	}
	users.remove(c, u)
	return &none{}, nil
}

// Eucalyptus's notes about a user.
type (
	userInfoInput       struct{ aboutUser }
	updateUserInfoInput struct {
		ofUser
		InfoKey   string `wire:"InfoKey,required,max=128"`
		InfoValue string `wire:"InfoValue,max=1024"`
	}
	info          struct{ Key, Value string }
	userInfoReply struct {
		Infos []info `xml:"Infos>member"`
	}
)

func getUserInfo(c *call, in *userInfoInput) (*userInfoReply, error) {
	u, err := in.find(c)
	if err != nil {
		return nil, err
	}
	return &userInfoReply{each(tagList(u.Info), func(t tag) info { return info(t) })}, nil
}

// updateUserInfo sets a note, or takes it away where its value is empty.
func updateUserInfo(c *call, in *updateUserInfoInput) (*none, error) {
	u, err := in.find(c)
	if err != nil {
		return nil, err
	}
	if _, there := u.Info[in.InfoKey]; !there && len(u.Info) >= maxTags {
		return nil, tooMany("InfoPerUser", maxTags)
	}
	users.edit(c, u, func(u *cloud.User) {
		if u.Info == nil {
			u.Info = map[string]string{}
		}
		u.Info[in.InfoKey] = in.InfoValue
		if in.InfoValue == "" {
			delete(u.Info, in.InfoKey)
		}
	})
	return &none{}, nil
}
