package ec2

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"mallee/wire"
)

func requiredInputs(name string) []string { return wire.Names(actions[name].in()) }

func TestPagesOfInstances(t *testing.T) {
	c := ready(t)
	var made []string
	for range 4 {
		made = append(made, c.run(c.user, "MinCount=3", "MaxCount=3")...)
	}
	var seen []string
	token, pages := "", 0
	for pages == 0 || token != "" {
		parameters := []string{"MaxResults=5"}
		if token != "" {
			parameters = append(parameters, "NextToken="+token)
		}
		out := get[describeInstancesReply](c, c.user, "DescribeInstances", parameters...)
		for _, r := range out.Reservations {
			for _, i := range r.Instances {
				seen = append(seen, i.ID)
			}
		}
		if pages++; pages == 1 {
			c.run(c.user) // what comes meanwhile repeats nothing and hides nothing
		}
		token = out.NextToken
	}
	slices.Sort(seen)
	if distinct := slices.Compact(slices.Clone(seen)); len(distinct) != len(seen) {
		t.Error("an instance was on two pages")
	}
	for _, id := range made {
		if _, found := slices.BinarySearch(seen, id); !found {
			t.Errorf("instance %s was on no page", id)
		}
	}
	if pages != 3 {
		t.Errorf("%d pages of 5 for 12 or 13 instances", pages)
	}
}

func TestTokensAreBound(t *testing.T) {
	c := ready(t)
	c.run(c.user, "MinCount=20", "MaxCount=20")
	token := get[describeInstancesReply](c, c.user, "DescribeInstances", "MaxResults=5").NextToken
	get[describeInstancesReply](c, c.user, "DescribeInstances", "MaxResults=7", "NextToken="+token)
	get[describeInstancesReply](c, c.user, "DescribeInstances", "NextToken="+token)
	tampered := "A" + token[1:]
	if tampered == token {
		tampered = "B" + token[1:]
	}
	for name, r := range map[string]refusal{
		"tampered":          c.refused(c.user, "DescribeInstances", "MaxResults=5", "NextToken="+tampered),
		"garbage":           c.refused(c.user, "DescribeInstances", "NextToken=garbage"),
		"not base64":        c.refused(c.user, "DescribeInstances", "NextToken=%%%"),
		"other filters":     c.refused(c.user, "DescribeInstances", append(asked("owner-id=1"), "NextToken="+token)...),
		"another action":    c.refused(c.user, "DescribeInstanceStatus", "NextToken="+token),
		"another account":   c.refused(c.admin, "DescribeInstances", "NextToken="+token),
		"longer than it is": c.refused(c.user, "DescribeInstances", "NextToken="+token+"AAAA"),
	} {
		if r.Code != "InvalidNextToken" {
			t.Errorf("a token that is %s: %+v", name, r)
		}
	}
}

// TestEveryPageSizeIsBounded as the table says.
func TestEveryPageSizeIsBounded(t *testing.T) {
	c := ready(t)
	for _, name := range sortedActions() {
		takes := slices.Contains(requiredInputs(name), "MaxResults")
		b := actions[name].pages
		if takes != (b != nil) {
			t.Errorf("%s takes pages: %v, its line in the table: %v", name, takes, b)
			continue
		}
		if !takes {
			continue
		}
		for _, n := range []int{b.min - 1, b.max + 1, -1} {
			if r := c.refused(c.user, name, "MaxResults="+itoa(n)); r.Code != "InvalidParameterValue" || !strings.Contains(r.Message, "MaxResults") {
				t.Errorf("%s with pages of %d: %+v", name, n, r)
			}
		}
		for _, n := range []int{b.min, b.max} {
			if status, body := c.send(c.user, name, "MaxResults="+itoa(n)); status != 200 {
				t.Errorf("%s with pages of %d: %s", name, n, body)
			}
		}
	}
	id := c.run(c.user)[0]
	for _, name := range []string{"DescribeInstances", "DescribeInstanceStatus"} {
		if r := c.refused(c.user, name, "MaxResults=5", "InstanceId.1="+id); r.Code != "InvalidParameterCombination" {
			t.Errorf("%s with ids and pages: %+v", name, r)
		}
	}
}

func itoa(n int) string { return strconv.Itoa(n) }
