package ec2

import (
	"strconv"

	"mallee/cloud"
)

type describeGatewaysInput struct {
	common
	selection
	ID []string `wire:"InternetGatewayId,max=1000"`
}

type describeGatewaysReply struct {
	Gateways  []gatewayReply `xml:"internetGatewaySet>item"`
	NextToken string         `xml:"nextToken,omitempty"`
}

type gatewayReply struct {
	ID          string              `xml:"internetGatewayId"`
	Owner       string              `xml:"ownerId"`
	Attachments []gatewayAttachment `xml:"attachmentSet>item"`
	Tags        []tag               `xml:"tagSet>item"`
}

type gatewayAttachment struct {
	VPC   string `xml:"vpcId"`
	State string `xml:"state"`
}

var gatewayKind = derivedKind[gatewayReply]("attachment.state", "attachment.vpc-id", "internet-gateway-id", "owner-id")

// gateway of the caller's account.
func (c *call) gateway() derived[gatewayReply] {
	account := c.account()
	id := partOf(account, cloud.PrefixGateway)
	r := gatewayReply{id, string(account), []gatewayAttachment{{vpcOf(account), "attached"}}, c.tagSet(id)}
	return derived[gatewayReply]{id, r, map[string][]string{
		"attachment.state": {"attached"}, "attachment.vpc-id": {vpcOf(account)}, "internet-gateway-id": {id}, "owner-id": {r.Owner},
	}}
}

func describeGateways(c *call, in *describeGatewaysInput) (*describeGatewaysReply, error) {
	p, err := gatewayKind.among(c, &in.selection, in.ID, naming{"InternetGatewayId", cloud.PrefixGateway, "InvalidInternetGatewayID", "internetGateway"}, []derived[gatewayReply]{c.gateway()})
	return &describeGatewaysReply{replies(p), p.next}, err
}

type describeRouteTablesInput struct {
	common
	selection
	ID []string `wire:"RouteTableId,max=1000"`
}

type describeRouteTablesReply struct {
	Tables    []routeTableReply `xml:"routeTableSet>item"`
	NextToken string            `xml:"nextToken,omitempty"`
}

type routeTableReply struct {
	ID           string             `xml:"routeTableId"`
	VPC          string             `xml:"vpcId"`
	Owner        string             `xml:"ownerId"`
	Routes       []route            `xml:"routeSet>item"`
	Associations []routeAssociation `xml:"associationSet>item"`
	Propagating  []string           `xml:"propagatingVgwSet>item"` // there are none
	Tags         []tag              `xml:"tagSet>item"`
}

type route struct {
	CIDR    string `xml:"destinationCidrBlock"`
	Gateway string `xml:"gatewayId"`
	State   string `xml:"state"`
	Origin  string `xml:"origin"`
}

type routeAssociation struct {
	ID    string `xml:"routeTableAssociationId"`
	Table string `xml:"routeTableId"`
	Main  bool   `xml:"main"`
	State string `xml:"associationState>state"`
}

var routeTableKind = derivedKind[routeTableReply]("association.gateway-id", "association.main", "association.route-table-association-id",
	"association.route-table-id", "association.subnet-id", "owner-id", "route-table-id", "route.destination-cidr-block", "route.gateway-id",
	"route.origin", "route.state", "vpc-id")

// routeTable of the caller's account: the main one, which all its subnets use.
func (c *call) routeTable() derived[routeTableReply] {
	account, local := c.account(), c.Pools.Local.String()
	id, gateway := partOf(account, cloud.PrefixRoutes), partOf(account, cloud.PrefixGateway)
	main := routeAssociation{partOf(account, "rtbassoc"), id, true, "associated"}
	r := routeTableReply{
		ID: id, VPC: vpcOf(account), Owner: string(account), Associations: []routeAssociation{main}, Tags: c.tagSet(id),
		Routes: []route{{local, "local", "active", "CreateRouteTable"}, {"0.0.0.0/0", gateway, "active", "CreateRoute"}},
	}
	return derived[routeTableReply]{id, r, map[string][]string{
		"association.main": {"true"}, "association.route-table-association-id": {main.ID}, "association.route-table-id": {id},
		"owner-id": {r.Owner}, "route-table-id": {id}, "route.destination-cidr-block": {local, "0.0.0.0/0"}, "route.gateway-id": {"local", gateway},
		"route.origin": {"CreateRouteTable", "CreateRoute"}, "route.state": {"active"}, "vpc-id": {r.VPC},
	}}
}

func describeRouteTables(c *call, in *describeRouteTablesInput) (*describeRouteTablesReply, error) {
	p, err := routeTableKind.among(c, &in.selection, in.ID, naming{"RouteTableId", cloud.PrefixRoutes, "InvalidRouteTableID", "routeTable"}, []derived[routeTableReply]{c.routeTable()})
	return &describeRouteTablesReply{replies(p), p.next}, err
}

type describeACLsInput struct {
	common
	selection
	ID []string `wire:"NetworkAclId,max=1000"`
}

type describeACLsReply struct {
	ACLs      []aclReply `xml:"networkAclSet>item"`
	NextToken string     `xml:"nextToken,omitempty"`
}

type aclReply struct {
	ID           string           `xml:"networkAclId"`
	VPC          string           `xml:"vpcId"`
	Owner        string           `xml:"ownerId"`
	Default      bool             `xml:"default"`
	Entries      []aclEntry       `xml:"entrySet>item"`
	Associations []aclAssociation `xml:"associationSet>item"`
	Tags         []tag            `xml:"tagSet>item"`
}

type aclEntry struct {
	Number   int    `xml:"ruleNumber"`
	Protocol string `xml:"protocol"`
	Action   string `xml:"ruleAction"`
	Egress   bool   `xml:"egress"`
	CIDR     string `xml:"cidrBlock"`
}

type aclAssociation struct {
	ID     string `xml:"networkAclAssociationId"`
	ACL    string `xml:"networkAclId"`
	Subnet string `xml:"subnetId"`
}

var aclKind = derivedKind[aclReply]("association.association-id", "association.network-acl-id", "association.subnet-id", "default", "entry.cidr",
	"entry.egress", "entry.protocol", "entry.rule-action", "entry.rule-number", "network-acl-id", "owner-id", "vpc-id")

// acl of the caller's account, which allows all: security groups decide.
func (c *call) acl() derived[aclReply] {
	const last = 32767 // EC2's number of the rule that ends each list
	account := c.account()
	r := aclReply{ID: partOf(account, cloud.PrefixACL), VPC: vpcOf(account), Owner: string(account), Default: true}
	r.Tags = c.tagSet(r.ID)
	for _, egress := range []bool{true, false} {
		r.Entries = append(r.Entries, aclEntry{100, "-1", "allow", egress, "0.0.0.0/0"}, aclEntry{last, "-1", "deny", egress, "0.0.0.0/0"})
	}
	values := map[string][]string{
		"default": {"true"}, "entry.cidr": {"0.0.0.0/0"}, "entry.egress": {"true", "false"}, "entry.protocol": {"-1"},
		"entry.rule-action": {"allow", "deny"}, "entry.rule-number": {"100", strconv.Itoa(last)}, "network-acl-id": {r.ID},
		"owner-id": {r.Owner}, "vpc-id": {r.VPC},
	}
	for _, s := range c.subnets() {
		a := aclAssociation{cloud.DerivedID("aclassoc", s.id), r.ID, s.id}
		r.Associations = append(r.Associations, a)
		values["association.association-id"] = append(values["association.association-id"], a.ID)
		values["association.subnet-id"] = append(values["association.subnet-id"], a.Subnet)
		values["association.network-acl-id"] = []string{r.ID}
	}
	return derived[aclReply]{r.ID, r, values}
}

func describeACLs(c *call, in *describeACLsInput) (*describeACLsReply, error) {
	p, err := aclKind.among(c, &in.selection, in.ID, naming{"NetworkAclId", cloud.PrefixACL, "InvalidNetworkAclID", "networkAcl"}, []derived[aclReply]{c.acl()})
	return &describeACLsReply{replies(p), p.next}, err
}

type describeOptionsInput struct {
	common
	selection
	ID []string `wire:"DhcpOptionsId,max=1000"`
}

type describeOptionsReply struct {
	Options   []optionsReply `xml:"dhcpOptionsSet>item"`
	NextToken string         `xml:"nextToken,omitempty"`
}

type optionsReply struct {
	ID      string       `xml:"dhcpOptionsId"`
	Owner   string       `xml:"ownerId"`
	Configs []dhcpConfig `xml:"dhcpConfigurationSet>item"`
	Tags    []tag        `xml:"tagSet>item"`
}

type dhcpConfig struct {
	Key    string           `xml:"key"`
	Values []attributeWrite `xml:"valueSet>item"`
}

type attributeWrite struct {
	Value string `xml:"value"`
}

var optionsKind = derivedKind[optionsReply]("dhcp-options-id", "key", "owner-id", "value")

// dhcpOptions of the caller's account, as guests are given them.
func (c *call) dhcpOptions() derived[optionsReply] {
	id := partOf(c.account(), cloud.PrefixOptions)
	r := optionsReply{id, string(c.account()), []dhcpConfig{
		{"domain-name", []attributeWrite{{cloud.Domain}}}, {"domain-name-servers", []attributeWrite{{"AmazonProvidedDNS"}}},
	}, c.tagSet(id)}
	return derived[optionsReply]{id, r, map[string][]string{
		"dhcp-options-id": {id}, "key": {"domain-name", "domain-name-servers"}, "owner-id": {r.Owner}, "value": {cloud.Domain, "AmazonProvidedDNS"},
	}}
}

func describeDhcpOptions(c *call, in *describeOptionsInput) (*describeOptionsReply, error) {
	p, err := optionsKind.among(c, &in.selection, in.ID, naming{"DhcpOptionsId", cloud.PrefixOptions, "InvalidDhcpOptionID", "dhcpOption"}, []derived[optionsReply]{c.dhcpOptions()})
	return &describeOptionsReply{replies(p), p.next}, err
}
