package ec2

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	for _, test := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"", "a", false}, {"a", "", false}, {"a", "a", true}, {"a", "ab", false},
		{"*", "", true}, {"*", "anything", true}, {"**", "x", true}, {"a*", "abc", true}, {"*c", "abc", true}, {"*b", "abc", false},
		{"a*c*e", "abcde", true}, {"a*c*e", "abcd", false}, {"*ab*ab*", "aab_abb", true}, {"a*a*a", "aa", false},
		{"?", "a", true}, {"?", "", false}, {"?", "ab", false}, {"a?c", "abc", true}, {"?", "ü", true}, {"??", "ü", false}, {"*?", "日本", true}, {"???", "日本", false},
		{`\*`, "*", true}, {`\*`, "a", false}, {`\?`, "?", true}, {`\\`, `\`, true}, {`a\*b*`, "a*bc", true}, {`\`, `\`, true}, {`x\`, `x\`, true},
		{"[a]", "[a]", true}, {"A", "a", false}, {"ü", "ü", true}, {"*ü*", "müsli", true},
	} {
		if got := match(test.pattern, test.s); got != test.want {
			t.Errorf("match(%q, %q) = %v", test.pattern, test.s, got)
		}
	}
}

// FuzzMatch compares with a regular expression.
func FuzzMatch(f *testing.F) {
	f.Add("a*b?c", "axxbyc")
	f.Add(`\*?`, "*x")
	f.Add("*ü?", "xüy")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if len(pattern) > 100 || len(s) > 1000 || strings.ToValidUTF8(pattern, "") != pattern || strings.ToValidUTF8(s, "") != s {
			return
		}
		if got, want := match(pattern, s), expression(pattern).MatchString(s); got != want {
			t.Errorf("match(%q, %q) = %v, want %v", pattern, s, got, want)
		}
	})
}

func expression(pattern string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	runes := []rune(pattern)
	for i := 0; i < len(runes); i++ {
		switch r := runes[i]; {
		case r == '*':
			b.WriteString(".*")
		case r == '?':
			b.WriteString(".")
		case r == '\\' && i+1 < len(runes):
			i++
			b.WriteString(regexp.QuoteMeta(string(runes[i])))
		default:
			b.WriteString(regexp.QuoteMeta(string(r)))
		}
	}
	b.WriteString(`\z`)
	return regexp.MustCompile(b.String())
}

// filters as parameters: name=value,value.
func asked(filters ...string) []string {
	var parameters []string
	for n, f := range filters {
		name, values, _ := strings.Cut(f, "=")
		parameters = append(parameters, fmt.Sprintf("Filter.%d.Name=%s", n+1, name))
		for m, value := range strings.Split(values, ",") {
			parameters = append(parameters, fmt.Sprintf("Filter.%d.Value.%d=%s", n+1, m+1, value))
		}
	}
	return parameters
}

func TestInstanceFilters(t *testing.T) {
	c := ready(t)
	web := c.run(c.user, "TagSpecification.1.ResourceType=instance", "TagSpecification.1.Tag.1.Key=Name", "TagSpecification.1.Tag.1.Value=web-1",
		"TagSpecification.1.Tag.2.Key=a*b", "TagSpecification.1.Tag.2.Value=")[0]
	db := c.run(c.user, "InstanceType=m1.large", "TagSpecification.1.ResourceType=instance", "TagSpecification.1.Tag.1.Key=Name", "TagSpecification.1.Tag.1.Value=db-1")[0]
	bare := c.run(c.user, "AddressingType=private")[0]
	c.seenUp(web)
	c.run(c.admin) // is never shown
	for _, test := range []struct {
		filters []string
		want    []string
	}{
		{nil, []string{web, db, bare}},
		{[]string{"tag:Name=web-1"}, []string{web}},
		{[]string{"tag:Name=web-1,db-1"}, []string{web, db}},
		{[]string{"tag:Name=*-1"}, []string{web, db}},
		{[]string{"tag:Name=WEB-1"}, nil},
		{[]string{"tag-key=Name"}, []string{web, db}},
		{[]string{"tag-key=a*b"}, []string{web}},
		{[]string{`tag-key=a\*b`}, []string{web}},
		{[]string{"tag:a*b="}, []string{web}},
		{[]string{"tag:Missing=*"}, nil},
		{[]string{"instance-state-name=running"}, []string{web}},
		{[]string{"instance-state-code=0"}, []string{db, bare}},
		{[]string{"instance-state-name=running,pending", "instance-type=m1.*"}, []string{web, db, bare}},
		{[]string{"instance-type=m1.large", "tag:Name=web-1"}, nil},
		{[]string{"ip-address=127.31.*"}, []string{web, db}},
		{[]string{"private-ip-address=172.31.*"}, []string{web, db, bare}},
		{[]string{"instance-id=" + web + "," + bare}, []string{web, bare}},
		{[]string{"group-name=default", "instance.group-name=d*"}, []string{web, db, bare}},
		{[]string{"vpc-id=vpc-00000000"}, nil},
		{[]string{"launch-time=2026-11-22T*"}, []string{web, db, bare}},
		{[]string{"owner-id=" + string(ordinary)}, []string{web, db, bare}},
	} {
		var got []string
		for _, r := range get[describeInstancesReply](c, c.user, "DescribeInstances", asked(test.filters...)...).Reservations {
			for _, i := range r.Instances {
				got = append(got, i.ID)
			}
		}
		slices.Sort(got)
		want := slices.Sorted(slices.Values(test.want))
		if !slices.Equal(got, want) {
			t.Errorf("%v: %v, want %v", test.filters, got, want)
		}
	}
}

// TestEveryFilterOfTheTable is taken by its action, and only those.
func TestEveryFilterOfTheTable(t *testing.T) {
	c := ready(t)
	c.seenUp(c.run(c.user)[0])
	get[createKeyPairReply](c, c.user, "CreateKeyPair", "KeyName=mine", "KeyType=ed25519")
	for _, name := range sortedActions() {
		spelled := map[string]string{"DescribeImportImageTasks": "Filters", "DescribeImportSnapshotTasks": "Filters"}[name]
		if spelled == "" {
			spelled = "Filter"
		}
		asked := func(filters ...string) []string {
			parameters := asked(filters...)
			for n, p := range parameters {
				parameters[n] = spelled + strings.TrimPrefix(p, "Filter")
			}
			return parameters
		}
		takes := slices.Contains(requiredInputs(name), spelled+".N.Name")
		if takes != (len(actions[name].filters) > 0) {
			t.Errorf("%s takes filters: %v, its line in the table: %v", name, takes, actions[name].filters)
		}
		for _, f := range actions[name].filters {
			f = strings.Replace(f, "tag:KEY", "tag:x", 1)
			if status, body := c.send(c.user, name, asked(f+"=*")...); status != 200 {
				t.Errorf("%s with the filter %s: %s", name, f, body)
			}
		}
		if !takes {
			continue
		}
		if r := c.refused(c.user, name, asked("bogus=1")...); r.Code != "InvalidParameterValue" || r.Message != "The filter 'bogus' is invalid" {
			t.Errorf("%s with an unknown filter: %+v", name, r)
		}
		many := asked("instance-id=" + strings.Repeat("x,", 200) + "x")
		if r := c.refused(c.user, name, many...); r.Code != "FilterLimitExceeded" {
			t.Errorf("%s with 201 values: %+v", name, r)
		}
		if r := c.refused(c.user, name, spelled+".1.Name=state"); r.Code != "InvalidParameterValue" || !strings.Contains(r.Message, "state") {
			t.Errorf("%s with a filter without values: %+v", name, r)
		}
	}
}
