package iam

import (
	"net/http"
	"strings"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// Services that this room answers for, as they stand in a signature's scope.
const (
	ServiceIAM = "iam"
	ServiceSTS = "sts"
)

// action answers one query action for a principal.
type action func(*IAM, Principal, wire.Form) (any, error)

// actions are all that are served so far: what a client needs to find out who
// it is. Everything else is refused by name.
var actions = map[string]map[string]action{
	ServiceSTS: {"GetCallerIdentity": getCallerIdentity},
	ServiceIAM: {
		"GetUser":            getUser,
		"ListAccessKeys":     listAccessKeys,
		"ListAccountAliases": listAccountAliases,
	},
}

// Handle answers a request of IAM or STS that was authenticated.
func (s *IAM) Handle(w http.ResponseWriter, service string, form wire.Form, p Principal, requestID string) {
	namespace := wire.IAMNamespace
	if service == ServiceSTS {
		namespace = wire.STSNamespace
	}
	name := form.Get("Action")
	out, err := s.do(service, name, form, p)
	if err == nil {
		err = wire.WriteQuery(w, namespace, name, requestID, out)
	}
	if err != nil {
		if wire.AsError(err).Status >= http.StatusInternalServerError {
			s.Log.Error("request failed", "request", requestID, "service", service, "action", name, "err", err)
		}
		wire.WriteQueryError(w, namespace, requestID, err)
	}
}

func (s *IAM) do(service, name string, form wire.Form, p Principal) (any, error) {
	do := actions[service][name]
	if name == "" {
		return nil, wire.MissingParameter("Action")
	}
	if do == nil {
		return nil, wire.Errorf("InvalidAction", "The action %s of %s is not served by this cloud yet.", wire.Shorten(name), strings.ToUpper(service))
	}
	if name == "GetCallerIdentity" { // needs no right, AWS says: whoever signs validly may know who he is
		return do(s, p, form)
	}
	if err := s.Authorize(p, service+":"+name, p.ARN()); err != nil {
		return nil, wire.Errorf("AccessDenied", "User: %s is not authorized to perform: %s:%s", p.ARN(), service, name)
	}
	return do(s, p, form)
}

type callerIdentity struct {
	Arn     string
	UserID  string `xml:"UserId"`
	Account cloud.AccountID
}

func getCallerIdentity(_ *IAM, p Principal, form wire.Form) (any, error) {
	if err := decode(form, &struct{}{}); err != nil {
		return nil, err
	}
	return callerIdentity{p.ARN(), p.UserID, p.Account}, nil
}

type user struct {
	Path, UserName string
	UserID         string `xml:"UserId"`
	Arn            string
	CreateDate     *wire.Time
}

type getUserReply struct{ User user }

func getUser(s *IAM, p Principal, form wire.Form) (any, error) {
	var in struct {
		UserName string `wire:"UserName"`
	}
	if err := decode(form, &in); err != nil {
		return nil, err
	}
	if in.UserName == "" {
		in.UserName = p.User
	}
	for u := range state.UsersByAccount.By(s.Store.View(), p.Account) {
		if u.Name == in.UserName {
			arn := Principal{Account: u.Account, User: u.Name}.ARN()
			return getUserReply{user{u.Path, u.Name, u.ID, arn, wire.At(u.CreatedAt)}}, nil
		}
	}
	return nil, noSuchUser(in.UserName)
}

type accessKeyMetadata struct {
	UserName    string
	AccessKeyID string `xml:"AccessKeyId"`
	Status      string
	CreateDate  *wire.Time
}

type listAccessKeysReply struct {
	Keys        []accessKeyMetadata `xml:"AccessKeyMetadata>member"`
	IsTruncated bool
}

func listAccessKeys(s *IAM, p Principal, form wire.Form) (any, error) {
	var in struct {
		UserName string `wire:"UserName"`
	}
	if err := decode(form, &in); err != nil {
		return nil, err
	}
	if in.UserName == "" {
		in.UserName = p.User
	}
	view := s.Store.View()
	if userID(view, p.Account, in.UserName) == "" {
		return nil, noSuchUser(in.UserName)
	}
	var out listAccessKeysReply
	for k := range state.AccessKeysByAccount.By(view, p.Account) {
		if k.User != in.UserName {
			continue
		}
		status := "Inactive"
		if k.Active {
			status = "Active"
		}
		out.Keys = append(out.Keys, accessKeyMetadata{k.User, k.ID, status, wire.At(k.CreatedAt)})
	}
	return out, nil
}

type listAccountAliasesReply struct {
	Aliases     []string `xml:"AccountAliases>member"`
	IsTruncated bool
}

func listAccountAliases(s *IAM, p Principal, form wire.Form) (any, error) {
	if err := decode(form, &struct{}{}); err != nil {
		return nil, err
	}
	account, _, ok := state.Accounts.Get(s.Store.View(), p.Account)
	if !ok || account.Alias == "" {
		return listAccountAliasesReply{}, nil
	}
	return listAccountAliasesReply{Aliases: []string{account.Alias}}, nil
}

// decode refuses what is left over: a parameter is honoured or named.
func decode(form wire.Form, in any) error {
	left, err := wire.Decode(form, in)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return wire.UnknownParameter(left[0])
	}
	return nil
}

func noSuchUser(name string) error {
	return &wire.Error{Code: "NoSuchEntity", Message: "The user with name " + wire.Shorten(name) + " cannot be found.", Status: http.StatusNotFound}
}
