package iam

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"mallee/cloud"
	"mallee/policy"
	"mallee/state"
	"mallee/wire"
)

var (
	aliasForm  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{1,61})[a-z0-9]$`)
	numberForm = regexp.MustCompile(`^[0-9]{12}$`)
)

func checkAlias(name, alias string) error {
	if !aliasForm.MatchString(alias) || strings.Contains(alias, "--") || numberForm.MatchString(alias) {
		return invalid(name, alias, "It must have 3 to 63 lower-case letters, digits and single dashes, begin and end with a letter or digit, and not be a number.")
	}
	return nil
}

// accountNamed finds an account by its alias or number.
func accountNamed(r state.Reader, name string) (cloud.AccountID, error) {
	if _, _, ok := state.Accounts.Get(r, cloud.AccountID(name)); ok {
		return cloud.AccountID(name), nil
	}
	if id := state.Owner(r, guardAlias, name); id != "" {
		return cloud.AccountID(id), nil
	}
	return "", noSuch("account", name)
}

// ofAccount is embedded by the inputs that name an account, Eucalyptus's.
type ofAccount struct {
	AccountName string `wire:"AccountName,required"`
}

func (o *ofAccount) find(c *call) (*cloud.Account, error) {
	id, err := accountNamed(c.read, o.AccountName)
	if err != nil {
		return nil, err
	}
	a, _, ok := state.Accounts.Get(c.read, id)
	if !ok {
		return nil, noSuch("account", o.AccountName)
	}
	return a, nil
}

type anAccount struct {
	AccountName string
	AccountID   cloud.AccountID `xml:"AccountId"`
	CreateDate  *wire.Time
}

type oneAccount struct{ Account anAccount }

type createAccountInput struct{ ofAccount }

// createAccount makes its admin too, who has no keys yet: CreateAccessKey with
// DelegateAccount makes one.
func createAccount(c *call, in *createAccountInput) (*oneAccount, error) {
	if err := checkAlias("AccountName", in.AccountName); err != nil {
		return nil, err
	}
	id, err := c.newAccountID()
	if err != nil {
		return nil, err
	}
	if c.tx.Claim(guardAlias, in.AccountName, string(id)) != nil {
		return nil, exists("account", in.AccountName)
	}
	a := cloud.Account{ID: id, Alias: in.AccountName, CreatedAt: c.Now()}
	state.Accounts.Put(c.tx, a)
	c.account = id
	e, err := users.entity(c, AdminUser, "/", nil)
	state.Users.Put(c.tx, cloud.User{Entity: e})
	return &oneAccount{anAccount{a.Alias, a.ID, wire.At(a.CreatedAt)}}, err
}

type listAccountsInput struct{ paged }

type listAccountsReply struct {
	Accounts []anAccount `xml:"Accounts>member"`
	page
}

func listAccounts(c *call, in *listAccountsInput) (*listAccountsReply, error) {
	var all []anAccount
	for a := range state.Accounts.All(c.read) {
		all = append(all, anAccount{a.Alias, a.ID, wire.At(a.CreatedAt)})
	}
	list, p, err := cut(in.paged, all, func(a anAccount) string { return string(a.AccountID) })
	return &listAccountsReply{list, p}, err
}

type deleteAccountInput struct {
	ofAccount
	Recursive bool
}

// deleteAccount refuses one that has users beside admin, unless told to take all
// of IAM's along; what runs or is stored must be removed first in any case.
func deleteAccount(c *call, in *deleteAccountInput) (*none, error) {
	a, err := in.find(c)
	if err != nil {
		return nil, err
	}
	if a.Alias == cloud.SystemAccount {
		return nil, conflict("The account %s runs the cloud and can't be deleted", a.Alias)
	}
	if what := belongings(c.tx, a.ID); what != "" {
		return nil, conflict("The account %s has %s still; remove them first", a.Alias, what)
	}
	if !in.Recursive && (len(users.under(c.tx, a.ID, "/")) > 1 || len(groups.under(c.tx, a.ID, "/")) > 0 || len(roles.under(c.tx, a.ID, "/")) > 0) {
		return nil, conflict("The account %s has users, groups or roles still; remove them first, or say Recursive=true", a.Alias)
	}
	c.account = a.ID
	c.clear()
	c.tx.Release(guardAlias, a.Alias)
	state.Accounts.Delete(c.tx, a.ID)
	return &none{}, nil
}

// belongings of an account outside of IAM, in a word; "" is none.
func belongings(r state.Reader, id cloud.AccountID) string {
	for range state.ReservationsByAccount.By(r, id) {
		return "instances"
	}
	for range state.VolumesByAccount.By(r, id) {
		return "volumes"
	}
	for range state.SnapshotsByAccount.By(r, id) {
		return "snapshots"
	}
	for i := range state.ImagesByAccount.By(r, id) {
		if i.Deregistered.IsZero() {
			return "images"
		}
	}
	for range state.KeyPairsByAccount.By(r, id) {
		return "key pairs"
	}
	return ""
}

// clear the call's account of all that IAM keeps for it.
func (c *call) clear() {
	for _, u := range users.under(c.tx, c.account, "/") {
		for _, k := range keysOf(c.tx, u) {
			state.AccessKeys.Delete(c.tx, k.ID)
			state.KeyUses.Delete(c.tx, k.ID)
		}
		for _, s := range certificatesOf(c.tx, u) {
			state.Certificates.Delete(c.tx, s.ID)
		}
		users.remove(c, u)
	}
	clearKind(c, groups)
	clearKind(c, roles)
	clearKind(c, profiles)
	clearKind(c, policies)
	clearKind(c, servers)
	for p := range state.ProvidersByAccount.By(c.tx, c.account) {
		state.Providers.Delete(c.tx, p.ARN)
	}
}

func clearKind[T any](c *call, k kind[T]) {
	for _, v := range k.under(c.tx, c.account, "/") {
		k.remove(c, v)
	}
}

// Inputs of the actions on an account's policies.
type (
	putAccountPolicyInput struct {
		ofAccount
		putting
	}
	accountPolicyInput struct {
		ofAccount
		naming
	}
	accountPoliciesInput struct {
		ofAccount
		paged
	}
	accountPolicyReply struct{ AccountName, PolicyName, PolicyDocument string }
)

func putAccountPolicy(c *call, in *putAccountPolicyInput) (*none, error) {
	a, err := in.find(c)
	if err != nil {
		return nil, err
	}
	if err := checkName("policy", in.PolicyName, 128); err != nil {
		return nil, err
	}
	if size := sizeOf(in.PolicyDocument); size > roleInline {
		return nil, tooMany("PolicySize", roleInline)
	}
	if _, err := policy.Parse(in.PolicyDocument, policy.Account); err != nil {
		return nil, err
	}
	state.Accounts.Edit(c.tx, a.ID, func(a *cloud.Account) {
		if a.Policies == nil {
			a.Policies = map[string]string{}
		}
		a.Policies[in.PolicyName] = in.PolicyDocument
	})
	return &none{}, nil
}

func getAccountPolicy(c *call, in *accountPolicyInput) (*accountPolicyReply, error) {
	a, err := in.find(c)
	if err != nil {
		return nil, err
	}
	text, ok := a.Policies[in.PolicyName]
	if !ok {
		return nil, noSuch("account policy", in.PolicyName)
	}
	return &accountPolicyReply{a.Alias, in.PolicyName, escaped(text)}, nil
}

func listAccountPolicies(c *call, in *accountPoliciesInput) (*policyNames, error) {
	a, err := in.find(c)
	if err != nil {
		return nil, err
	}
	list, p, err := cut(in.paged, sortedKeys(a.Policies), same)
	return &policyNames{list, p}, err
}

func deleteAccountPolicy(c *call, in *accountPolicyInput) (*none, error) {
	a, err := in.find(c)
	if err != nil {
		return nil, err
	}
	if _, ok := a.Policies[in.PolicyName]; !ok {
		return nil, noSuch("account policy", in.PolicyName)
	}
	state.Accounts.Edit(c.tx, a.ID, func(a *cloud.Account) { delete(a.Policies, in.PolicyName) })
	return &none{}, nil
}

type aliasInput struct {
	common
	AccountAlias string `wire:"AccountAlias,required"`
}

// createAlias gives the account another name, as AWS does: it has one at most.
func createAlias(c *call, in *aliasInput) (*none, error) {
	if err := checkAlias("AccountAlias", in.AccountAlias); err != nil {
		return nil, err
	}
	a, _, ok := state.Accounts.Get(c.tx, c.account)
	if !ok {
		return nil, noSuch("account", string(c.account))
	}
	if a.Alias == cloud.SystemAccount {
		return nil, wire.Errorf("InvalidInput", "The account %s keeps its name, by which the cloud knows it", a.Alias)
	}
	if c.tx.Claim(guardAlias, in.AccountAlias, string(a.ID)) != nil {
		return nil, wire.Errorf("EntityAlreadyExists", "The account alias %s already exists.", in.AccountAlias)
	}
	if a.Alias != "" && a.Alias != in.AccountAlias {
		c.tx.Release(guardAlias, a.Alias)
	}
	state.Accounts.Edit(c.tx, a.ID, func(a *cloud.Account) { a.Alias = in.AccountAlias })
	return &none{}, nil
}

func deleteAlias(c *call, in *aliasInput) (*none, error) {
	a, _, ok := state.Accounts.Get(c.tx, c.account)
	switch {
	case !ok || a.Alias != in.AccountAlias:
		return nil, wire.Errorf("NoSuchEntity", "The account alias %s cannot be found.", wire.Shorten(in.AccountAlias))
	case a.Alias == cloud.SystemAccount:
		return nil, wire.Errorf("InvalidInput", "The account %s keeps its name, by which the cloud knows it", a.Alias)
	}
	c.tx.Release(guardAlias, a.Alias)
	state.Accounts.Edit(c.tx, a.ID, func(a *cloud.Account) { a.Alias = "" })
	return &none{}, nil
}

type listAliasesInput struct {
	common
	paged
}

type listAliasesReply struct {
	Aliases []string `xml:"AccountAliases>member"`
	page
}

func listAliases(c *call, _ *listAliasesInput) (*listAliasesReply, error) {
	out := &listAliasesReply{}
	if a, _, ok := state.Accounts.Get(c.read, c.account); ok && a.Alias != "" {
		out.Aliases = []string{a.Alias}
	}
	return out, nil
}

type summaryInput struct{ common }

type summaryEntry struct {
	Key   string `xml:"key"`
	Value int    `xml:"value"`
}

type summaryReply struct {
	Entries []summaryEntry `xml:"SummaryMap>entry"`
}

func getSummary(c *call, _ *summaryInput) (*summaryReply, error) {
	providers := 0
	for range state.ProvidersByAccount.By(c.read, c.account) {
		providers++
	}
	entries := []summaryEntry{
		{"Users", len(users.under(c.read, c.account, "/"))}, {"Groups", len(groups.under(c.read, c.account, "/"))},
		{"Roles", len(roles.under(c.read, c.account, "/"))}, {"InstanceProfiles", len(profiles.under(c.read, c.account, "/"))},
		{"Policies", len(policies.under(c.read, c.account, "/"))}, {"ServerCertificates", len(servers.under(c.read, c.account, "/"))},
		{"Providers", providers}, {"MFADevices", 0}, {"MFADevicesInUse", 0}, {"AccountMFAEnabled", 0}, {"AccountAccessKeysPresent", 0},
		{"AccessKeysPerUserQuota", maxKeys}, {"SigningCertificatesPerUserQuota", maxKeys}, {"GroupsPerUserQuota", maxGroups},
		{"UserPolicySizeQuota", userInline}, {"GroupPolicySizeQuota", groupInline}, {"PolicySizeQuota", maxManaged},
		{"VersionsPerPolicyQuota", maxVersions}, {"AttachedPoliciesPerUserQuota", maxAttached},
		{"AttachedPoliciesPerGroupQuota", maxAttached}, {"AttachedPoliciesPerRoleQuota", maxAttached}, {"AssumeRolePolicySizeQuota", maxTrust},
	}
	slices.SortFunc(entries, func(a, b summaryEntry) int { return cmp.Compare(a.Key, b.Key) })
	return &summaryReply{entries}, nil
}

type mfaInput struct {
	aboutUser
	paged
}

type mfaReply struct {
	Devices []struct{} `xml:"MFADevices>member"`
	page
}

// listMFA devices, of which there are none: this cloud serves none.
func listMFA(c *call, in *mfaInput) (*mfaReply, error) {
	_, err := in.find(c)
	return &mfaReply{}, err
}
