package iam

// actions is the table of all that is answered, one line an action. It is made
// once; docs/iam-coverage.md is generated from it.
var actions = table(
	// accounts, Eucalyptus's
	ours("CreateAccount", writing(createAccount)),
	ours("DeleteAccount", writing(deleteAccount)),
	ours("ListAccounts", reading(listAccounts)),
	ours("PutAccountPolicy", writing(putAccountPolicy)),
	ours("GetAccountPolicy", reading(getAccountPolicy)),
	ours("ListAccountPolicies", reading(listAccountPolicies)),
	ours("DeleteAccountPolicy", writing(deleteAccountPolicy)),

	// the account
	named("CreateAccountAlias", writing(createAlias)),
	named("DeleteAccountAlias", writing(deleteAlias)),
	named("ListAccountAliases", reading(listAliases)),
	named("GetAccountSummary", reading(getSummary)),

	// users
	named("CreateUser", writing(createUser)),
	named("GetUser", reading(getUser)),
	named("ListUsers", reading(listUsers)),
	named("UpdateUser", writing(updateUser)),
	named("DeleteUser", writing(deleteUser)),
	named("GetUserInfo", reading(getUserInfo)),
	named("UpdateUserInfo", writing(updateUserInfo)),

	// what users prove themselves with
	named("CreateAccessKey", writing(createKey)),
	named("ListAccessKeys", reading(listKeys)),
	named("UpdateAccessKey", writing(updateKey)),
	named("DeleteAccessKey", writing(deleteKey)),
	named("GetAccessKeyLastUsed", reading(getKeyLastUsed)),
	named("CreateLoginProfile", preparing(prepareLogin, createLogin)),
	named("GetLoginProfile", reading(getLogin)),
	named("UpdateLoginProfile", preparing(prepareUpdateLogin, updateLogin)),
	named("DeleteLoginProfile", writing(deleteLogin)),
	named("ChangePassword", preparing(prepareChange, changePassword)),
	named("UploadSigningCertificate", writing(uploadCertificate)),
	named("CreateSigningCertificate", preparing(makeSigningPair, createCertificate)),
	named("ListSigningCertificates", reading(listCertificates)),
	named("UpdateSigningCertificate", writing(updateCertificate)),
	named("DeleteSigningCertificate", writing(deleteCertificate)),
	named("ListMFADevices", reading(listMFA)),

	// groups
	named("CreateGroup", writing(createGroup)),
	named("GetGroup", reading(getGroup)),
	named("ListGroups", reading(listGroups)),
	named("ListGroupsForUser", reading(listGroupsForUser)),
	named("UpdateGroup", writing(updateGroup)),
	named("DeleteGroup", writing(deleteGroup)),
	named("AddUserToGroup", writing(addUserToGroup)),
	named("RemoveUserFromGroup", writing(removeUserFromGroup)),

	// roles and instance profiles
	named("CreateRole", writing(createRole)),
	named("GetRole", reading(getRole)),
	named("ListRoles", reading(listRoles)),
	named("UpdateAssumeRolePolicy", writing(updateTrust)),
	named("UpdateRole", writing(updateRole)),
	named("UpdateRoleDescription", writing(updateRoleDescription)),
	named("DeleteRole", writing(deleteRole)),
	named("CreateInstanceProfile", writing(createProfile)),
	named("GetInstanceProfile", reading(getProfile)),
	named("ListInstanceProfiles", reading(listProfiles)),
	named("ListInstanceProfilesForRole", reading(listProfilesForRole)),
	named("AddRoleToInstanceProfile", writing(addRoleToProfile)),
	named("RemoveRoleFromInstanceProfile", writing(removeRoleFromProfile)),
	named("DeleteInstanceProfile", writing(deleteProfile)),

	// inline policies and boundaries
	named("PutUserPolicy", writing(putInline[*putUserPolicy])),
	named("GetUserPolicy", reading(getInline[*userPolicy])),
	named("ListUserPolicies", reading(listInline[*listUserPolicies])),
	named("DeleteUserPolicy", writing(deleteInline[*userPolicy])),
	named("PutGroupPolicy", writing(putInline[*putGroupPolicy])),
	named("GetGroupPolicy", reading(getInline[*groupPolicy])),
	named("ListGroupPolicies", reading(listInline[*listGroupPolicies])),
	named("DeleteGroupPolicy", writing(deleteInline[*groupPolicy])),
	named("PutRolePolicy", writing(putInline[*putRolePolicy])),
	named("GetRolePolicy", reading(getInline[*rolePolicy])),
	named("ListRolePolicies", reading(listInline[*listRolePolicies])),
	named("DeleteRolePolicy", writing(deleteInline[*rolePolicy])),
	named("PutUserPermissionsBoundary", writing(putBoundary[*putUserBoundary])),
	named("DeleteUserPermissionsBoundary", writing(deleteBoundary[*deleteUserBoundary])),
	named("PutRolePermissionsBoundary", writing(putBoundary[*putRoleBoundary])),
	named("DeleteRolePermissionsBoundary", writing(deleteBoundary[*deleteRoleBoundary])),

	// managed policies
	named("CreatePolicy", writing(createPolicy)),
	named("GetPolicy", reading(getPolicy)),
	named("ListPolicies", reading(listPolicies)),
	named("DeletePolicy", writing(deletePolicy)),
	named("CreatePolicyVersion", writing(createVersion)),
	named("GetPolicyVersion", reading(getVersion)),
	named("ListPolicyVersions", reading(listVersions)),
	named("DeletePolicyVersion", writing(deleteVersion)),
	named("SetDefaultPolicyVersion", writing(setDefaultVersion)),
	named("ListEntitiesForPolicy", reading(listEntities)),
	named("AttachUserPolicy", writing(attach[*attachUser])),
	named("DetachUserPolicy", writing(detach[*attachUser])),
	named("ListAttachedUserPolicies", reading(listAttached[*attachedUser])),
	named("AttachGroupPolicy", writing(attach[*attachGroup])),
	named("DetachGroupPolicy", writing(detach[*attachGroup])),
	named("ListAttachedGroupPolicies", reading(listAttached[*attachedGroup])),
	named("AttachRolePolicy", writing(attach[*attachRole])),
	named("DetachRolePolicy", writing(detach[*attachRole])),
	named("ListAttachedRolePolicies", reading(listAttached[*attachedRole])),

	// server certificates and providers
	named("UploadServerCertificate", writing(uploadServer)),
	named("GetServerCertificate", reading(getServer)),
	named("ListServerCertificates", reading(listServers)),
	named("UpdateServerCertificate", writing(updateServer)),
	named("DeleteServerCertificate", writing(deleteServer)),
	named("CreateOpenIDConnectProvider", writing(createProvider)),
	named("GetOpenIDConnectProvider", reading(getProvider)),
	named("ListOpenIDConnectProviders", reading(listProviders)),
	named("AddClientIDToOpenIDConnectProvider", writing(addClientID)),
	named("RemoveClientIDFromOpenIDConnectProvider", writing(removeClientID)),
	named("UpdateOpenIDConnectProviderThumbprint", writing(updateThumbprint)),
	named("DeleteOpenIDConnectProvider", writing(deleteProvider)),

	// tags
	named("TagUser", writing(tagIt[*tagUser])),
	named("UntagUser", writing(untagIt[*untagUser])),
	named("ListUserTags", reading(listTags[*userTags])),
	named("TagRole", writing(tagIt[*tagRole])),
	named("UntagRole", writing(untagIt[*untagRole])),
	named("ListRoleTags", reading(listTags[*roleTags])),
	named("TagPolicy", writing(tagIt[*tagPolicy])),
	named("UntagPolicy", writing(untagIt[*untagPolicy])),
	named("ListPolicyTags", reading(listTags[*policyTags])),
	named("TagInstanceProfile", writing(tagIt[*tagProfile])),
	named("UntagInstanceProfile", writing(untagIt[*untagProfile])),
	named("ListInstanceProfileTags", reading(listTags[*profileTags])),
	named("TagServerCertificate", writing(tagIt[*tagServer])),
	named("UntagServerCertificate", writing(untagIt[*untagServer])),
	named("ListServerCertificateTags", reading(listTags[*serverTags])),
	named("TagOpenIDConnectProvider", writing(tagIt[*tagProvider])),
	named("UntagOpenIDConnectProvider", writing(untagIt[*untagProvider])),
	named("ListOpenIDConnectProviderTags", reading(listTags[*providerTags])),

	// simulation
	named("SimulateCustomPolicy", reading(simulateCustom)),
	named("SimulatePrincipalPolicy", reading(simulatePrincipal)),
	named("GetContextKeysForCustomPolicy", reading(contextKeysCustom)),
	named("GetContextKeysForPrincipalPolicy", reading(contextKeysPrincipal)),

	// sessions
	session("GetCallerIdentity", reading(getCallerIdentity)).openly(),
	session("GetSessionToken", writing(getSessionToken)).openly(),
	session("GetFederationToken", writing(getFederationToken)),
	session("AssumeRole", writing(assumeRole)).openly(), // the role's trust and the caller's policies decide, together
	session("AssumeRoleWithWebIdentity", preparing(proveIdentity, assumeWithWebIdentity)).openly().bare(),
	session("DecodeAuthorizationMessage", reading(decodeMessage)),
)

func table(lines ...*action) map[string]*action {
	byName := make(map[string]*action, len(lines))
	for _, a := range lines {
		byName[a.service+":"+a.name] = a
	}
	return byName
}

func named(name string, a action) *action {
	a.service, a.name = ServiceIAM, name
	return &a
}

// ours are for the cloud's administrators alone.
func ours(name string, a action) *action {
	a.system = true
	return named(name, a)
}

// session actions are of STS.
func session(name string, a action) *action {
	a.service, a.name = ServiceSTS, name
	return &a
}

// openly says that no right is needed beyond a valid signature.
func (a *action) openly() *action { a.open = true; return a }

// bare says that no signature is needed either.
func (a *action) bare() *action { a.unsigned = true; return a }
