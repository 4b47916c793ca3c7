package iam

import (
	"net/url"
	"regexp"
	"slices"
	"strings"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// Limits of OpenID Connect providers, as AWS has them.
const (
	maxClients     = 100
	maxThumbprints = 5
)

var thumbprintForm = regexp.MustCompile(`^[0-9A-Fa-f]{40}$`)

// ofProvider is embedded by the inputs that name an OpenID Connect provider.
type ofProvider struct {
	common
	ProviderArn string `wire:"OpenIDConnectProviderArn,required,max=2048"`
}

func (o *ofProvider) arn(*call) string { return o.ProviderArn }

func (o *ofProvider) find(c *call) (*cloud.Provider, error) {
	p, _, ok := state.Providers.Get(c.read, o.ProviderArn)
	if !ok || p.Account != c.account {
		return nil, wire.Errorf("NoSuchEntity", "OpenIDConnect Provider not found for arn %s", wire.Shorten(o.ProviderArn))
	}
	return p, nil
}

func (o *ofProvider) tagsOf(c *call) (map[string]string, func(map[string]string), error) {
	p, err := o.find(c)
	if err != nil {
		return nil, nil, err
	}
	return p.Tags, func(tags map[string]string) {
		state.Providers.Edit(c.tx, p.ARN, func(p *cloud.Provider) { p.Tags = tags })
	}, nil
}

// change a provider, where what comes of it is within the limits.
func (o *ofProvider) change(c *call, change func(*cloud.Provider)) (*none, error) {
	p, err := o.find(c)
	if err != nil {
		return nil, err
	}
	changed := *p
	changed.Clients, changed.Thumbprints = slices.Clone(p.Clients), slices.Clone(p.Thumbprints)
	change(&changed)
	if err := checkProvider(&changed); err != nil {
		return nil, err
	}
	state.Providers.Put(c.tx, changed)
	return &none{}, nil
}

func checkProvider(p *cloud.Provider) error {
	switch {
	case len(p.Clients) > maxClients:
		return tooMany("ClientIdsPerOpenIdConnectProvider", maxClients)
	case len(p.Thumbprints) > maxThumbprints:
		return wire.Errorf("InvalidInput", "Thumbprint list must contain fewer than %d entries.", maxThumbprints)
	}
	for _, t := range p.Thumbprints {
		if !thumbprintForm.MatchString(t) {
			return wire.Errorf("InvalidInput", "The thumbprint %s is not 40 hexadecimal digits", wire.Shorten(t))
		}
	}
	for _, id := range p.Clients {
		if id == "" || len(id) > 255 {
			return wire.Errorf("InvalidInput", "The client id %q must have 1 to 255 characters", wire.Shorten(id))
		}
	}
	return nil
}

type createProviderInput struct {
	common
	tagged
	URL            string   `wire:"Url,required,max=255"`
	ClientIDList   []string `wire:"ClientIDList"`
	ThumbprintList []string `wire:"ThumbprintList"`
}

func (in *createProviderInput) arn(c *call) string {
	return arn(c.account, "oidc-provider", "/", strings.TrimPrefix(in.URL, "https://"))
}

type createProviderReply struct {
	Arn  string `xml:"OpenIDConnectProviderArn"`
	Tags []tag  `xml:"Tags>member"`
}

func createProvider(c *call, in *createProviderInput) (*createProviderReply, error) {
	u, err := url.Parse(in.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, wire.Errorf("ValidationError", "Invalid Open ID Connect Provider URL %s; expecting https://HOST/PATH", wire.Shorten(in.URL))
	}
	p := cloud.Provider{
		ARN: in.arn(c), Account: c.account, URL: strings.TrimPrefix(in.URL, "https://"),
		Clients: in.ClientIDList, Thumbprints: in.ThumbprintList, CreatedAt: c.Now(),
	}
	if p.Tags, err = tagMap(nil, in.Tags); err != nil {
		return nil, err
	}
	if err := checkProvider(&p); err != nil {
		return nil, err
	}
	if _, _, there := state.Providers.Get(c.tx, p.ARN); there {
		return nil, wire.Errorf("EntityAlreadyExists", "Provider with url %s already exists.", wire.Shorten(in.URL))
	}
	state.Providers.Put(c.tx, p)
	count := 0
	for range state.ProvidersByAccount.By(c.tx, c.account) {
		count++
	}
	return &createProviderReply{p.ARN, tagList(p.Tags)}, c.within("iam:quota-openidconnectprovidernumber", count)
}

type getProviderInput struct{ ofProvider }

type getProviderReply struct {
	URL            string   `xml:"Url"`
	ClientIDList   []string `xml:"ClientIDList>member"`
	ThumbprintList []string `xml:"ThumbprintList>member"`
	CreateDate     *wire.Time
	Tags           []tag `xml:"Tags>member"`
}

func getProvider(c *call, in *getProviderInput) (*getProviderReply, error) {
	p, err := in.find(c)
	if err != nil {
		return nil, err
	}
	return &getProviderReply{p.URL, p.Clients, p.Thumbprints, wire.At(p.CreatedAt), tagList(p.Tags)}, nil
}

type listProvidersInput struct{ common }

type aProvider struct{ Arn string }

type listProvidersReply struct {
	List []aProvider `xml:"OpenIDConnectProviderList>member"`
}

func listProviders(c *call, _ *listProvidersInput) (*listProvidersReply, error) {
	out := &listProvidersReply{}
	for p := range state.ProvidersByAccount.By(c.read, c.account) {
		out.List = append(out.List, aProvider{p.ARN})
	}
	return out, nil
}

type clientIDInput struct {
	ofProvider
	ClientID string `wire:"ClientID,required"`
}

func addClientID(c *call, in *clientIDInput) (*none, error) {
	return in.change(c, func(p *cloud.Provider) {
		if !slices.Contains(p.Clients, in.ClientID) {
			p.Clients = append(p.Clients, in.ClientID)
		}
	})
}

func removeClientID(c *call, in *clientIDInput) (*none, error) {
	return in.change(c, func(p *cloud.Provider) {
		p.Clients = slices.DeleteFunc(p.Clients, func(id string) bool { return id == in.ClientID })
	})
}

type thumbprintInput struct {
	ofProvider
	ThumbprintList []string `wire:"ThumbprintList,required"`
}

func updateThumbprint(c *call, in *thumbprintInput) (*none, error) {
	return in.change(c, func(p *cloud.Provider) { p.Thumbprints = in.ThumbprintList })
}

type deleteProviderInput struct{ ofProvider }

func deleteProvider(c *call, in *deleteProviderInput) (*none, error) {
	p, err := in.find(c)
	if err != nil {
		return nil, err
	}
	state.Providers.Delete(c.tx, p.ARN)
	return &none{}, nil
}
