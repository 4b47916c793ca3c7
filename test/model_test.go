package test

import (
	"crypto/rand"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	//lint:ignore SA1019 nothing of it is used; its module, which is no longer changed, has Amazon's model of EC2
	_ "github.com/aws/aws-sdk-go/aws/awserr"
)

// eucalyptus lists parameters that Amazon's EC2 doesn't have and Eucalyptus has.
var eucalyptus = []string{"RunInstances AddressingType", "RegisterImage Platform", "ImportInstance LaunchSpecification.KeyName"}

// newer lists parameters that are younger than the model, which is no longer
// changed. That EC2 has them is shown by Amazon's SDK of today.
var newer = map[string]any{
	"CreateImage SnapshotLocation":              ec2.CreateImageInput{}.SnapshotLocation,
	"CreateSnapshot Location":                   ec2.CreateSnapshotInput{}.Location,
	"CreateSnapshots Location":                  ec2.CreateSnapshotsInput{}.Location,
	"CreateVolume AvailabilityZoneId":           ec2.CreateVolumeInput{}.AvailabilityZoneId,
	"DeregisterImage DeleteAssociatedSnapshots": ec2.DeregisterImageInput{}.DeleteAssociatedSnapshots,
	"RunInstances Placement.AvailabilityZoneId": types.Placement{}.AvailabilityZoneId,
	"StopInstances SkipOsShutdown":              ec2.StopInstancesInput{}.SkipOsShutdown,
	"TerminateInstances Force":                  ec2.TerminateInstancesInput{}.Force,
	"TerminateInstances SkipOsShutdown":         ec2.TerminateInstancesInput{}.SkipOsShutdown,
}

// newerMembers lists members of replies that are younger than the model, likewise.
var newerMembers = map[string]any{
	"Image sourceImageId":     types.Image{}.SourceImageId,
	"Image sourceImageRegion": types.Image{}.SourceImageRegion,
}

// model is what is read of Amazon's published model of EC2.
type model struct {
	Operations map[string]struct {
		Input  shapeRef `json:"input"`
		Output shapeRef `json:"output"`
	} `json:"operations"`
	Shapes map[string]shape `json:"shapes"`
}

type shapeRef struct {
	Shape        string `json:"shape"`
	LocationName string `json:"locationName"`
	QueryName    string `json:"queryName"`
}

type shape struct {
	Type    string              `json:"type"`
	Members map[string]shapeRef `json:"members"`
	Member  shapeRef            `json:"member"`
	Enum    []string            `json:"enum"`
}

func readModel(t *testing.T) *model {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/aws/aws-sdk-go").Output()
	if err != nil {
		t.Fatalf("where Amazon's model is: %v", err)
	}
	data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "models", "apis", "ec2", "2016-11-15", "api-2.json"))
	if err != nil {
		t.Fatal(err)
	}
	m := &model{}
	if err := json.Unmarshal(data, m); err != nil {
		t.Fatal(err)
	}
	return m
}

// takes says whether a parameter, in parts with N for numbers of lists, is one
// of a shape's.
func (m *model) takes(of string, parts []string) bool {
	s := m.Shapes[of]
	switch {
	case s.Type == "list":
		return len(parts) > 0 && parts[0] == "N" && m.takes(s.Member.Shape, parts[1:])
	case s.Type != "structure":
		return len(parts) == 0
	case len(parts) == 0:
		return false
	}
	for name, member := range s.Members {
		if queryName(name, member) == parts[0] {
			return m.takes(member.Shape, parts[1:])
		}
	}
	return false
}

// queryName of a member, by the rules of the protocol ec2.
func queryName(name string, ref shapeRef) string {
	switch {
	case ref.QueryName != "":
		return ref.QueryName
	case ref.LocationName != "":
		return strings.ToUpper(ref.LocationName[:1]) + ref.LocationName[1:]
	}
	return name
}

// TestParametersAreAmazons reads docs/coverage.md, which is generated from what
// the program honours: Amazon's clients can send all of it.
func TestParametersAreAmazons(t *testing.T) {
	m := readModel(t)
	text, err := os.ReadFile(filepath.Join("..", "docs", "coverage.md"))
	if err != nil {
		t.Fatal(err)
	}
	actions, parameters := 0, 0
	for section := range strings.SplitSeq(string(text), "\n## ") {
		action, rest, _ := strings.Cut(section, "\n")
		list := regexp.MustCompile(`(?m)^- parameters: (.*)$`).FindStringSubmatch(rest)
		if list == nil {
			continue
		}
		actions++
		operation, ok := m.Operations[action]
		if !ok {
			t.Errorf("EC2 has no action %s", action)
		}
		for parameter := range strings.SplitSeq(list[1], ", ") {
			parameters++
			parameter = strings.Trim(parameter, "`")
			_, young := newer[action+" "+parameter]
			if !m.takes(operation.Input.Shape, strings.Split(parameter, ".")) && !young && !slices.Contains(eucalyptus, action+" "+parameter) {
				t.Errorf("EC2's %s has no parameter %s", action, parameter)
			}
		}
	}
	if actions < 20 || parameters < 100 {
		t.Errorf("docs/coverage.md has %d actions and %d parameters: is it still written as this test reads it?", actions, parameters)
	}
}

// node is an element of a reply.
type node struct {
	XMLName  xml.Name
	Text     string `xml:",chardata"`
	Children []node `xml:",any"`
}

// check an element against a shape, and say what isn't in the model.
func (m *model) check(at string, n node, of string) (faults []string) {
	s := m.Shapes[of]
	switch s.Type {
	case "structure":
		members := map[string]string{}
		for name, ref := range s.Members {
			if ref.LocationName != "" {
				name = ref.LocationName
			}
			members[name] = ref.Shape
		}
		for _, c := range n.Children {
			name := c.XMLName.Local
			if shape, ok := members[name]; ok {
				faults = append(faults, m.check(at+"/"+name, c, shape)...)
			} else if _, ok := newerMembers[of+" "+name]; !ok && (name != "requestId" || strings.Contains(at, "/")) {
				faults = append(faults, fmt.Sprintf("%s has <%s>, which %s doesn't", at, name, of))
			}
		}
	case "list":
		for _, c := range n.Children {
			if c.XMLName.Local != "item" {
				faults = append(faults, fmt.Sprintf("%s has <%s> instead of <item>", at, c.XMLName.Local))
			}
			faults = append(faults, m.check(at+"/item", c, s.Member.Shape)...)
		}
	default:
		if err := s.checkText(n.Text); err != nil {
			faults = append(faults, fmt.Sprintf("%s: %v", at, err))
		}
	}
	return faults
}

func (s shape) checkText(text string) (err error) {
	switch s.Type {
	case "integer", "long":
		_, err = strconv.ParseInt(text, 10, 64)
	case "boolean":
		if text != "true" && text != "false" {
			err = fmt.Errorf("%q is no boolean", text)
		}
	case "timestamp":
		if !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`).MatchString(text) {
			err = fmt.Errorf("%q is no time", text)
		}
	case "string":
		if len(s.Enum) > 0 && text != "" && text != "windows" && !slices.Contains(s.Enum, text) { // EC2 sends windows, whatever its model says
			err = fmt.Errorf("%q is none of %v", text, s.Enum)
		}
	}
	return err
}

func (m *model) checkReply(t *testing.T, from, action, text string) {
	t.Helper()
	var reply node
	if err := xml.NewDecoder(strings.NewReader(text)).Decode(&reply); err != nil && err != io.EOF {
		t.Errorf("%s: %v", from, err)
		return
	}
	if reply.XMLName.Local == "Response" && strings.Contains(text, "<Errors>") {
		return // a refusal is a reply too
	}
	if reply.XMLName.Local != action+"Response" {
		t.Errorf("%s is <%s>", from, reply.XMLName.Local)
		return
	}
	output := m.Operations[action].Output.Shape
	if output == "" { // EC2 says <return>true</return>, and its model nothing
		return
	}
	for _, fault := range m.check(action, reply, output) {
		t.Errorf("%s: %s", from, fault)
	}
}

// TestRepliesAreAmazons: no element, and no word of a list of words, that
// Amazon's clients don't know.
func TestRepliesAreAmazons(t *testing.T) {
	w := theWorld(t)
	m := readModel(t)
	i := run(t, w.Cloud, &ec2.RunInstancesInput{ImageId: &w.pv, TagSpecifications: []types.TagSpecification{{
		ResourceType: types.ResourceTypeInstance, Tags: []types.Tag{{Key: &w.pv, Value: &w.hvm}},
	}}}).Instances[0]
	await(t, w.Cloud, types.InstanceStateNameRunning, *i.InstanceId)
	newKey(t, w.Cloud, "modelled", types.KeyTypeEd25519)
	for _, parameters := range [][]string{
		{"DescribeInstances"}, {"DescribeInstances", "MaxResults=5"}, {"DescribeInstanceStatus", "IncludeAllInstances=true"},
		{"DescribeInstanceAttribute", "InstanceId=" + *i.InstanceId, "Attribute=instanceType"},
		{"DescribeImages"}, {"DescribeKeyPairs", "IncludePublicKey=true"}, {"DescribeSecurityGroups"}, {"DescribeTags"},
		{"DescribeInstanceTypes"}, {"DescribeInstanceTypeOfferings"}, {"DescribeAvailabilityZones"}, {"DescribeRegions"}, {"DescribeAccountAttributes"},
		{"GetConsoleOutput", "InstanceId=" + *i.InstanceId}, {"RebootInstances", "InstanceId.1=" + *i.InstanceId},
		{"CreateKeyPair", "KeyName=modelled twice", "KeyType=ed25519"}, {"DeleteKeyPair", "KeyName=modelled twice"},
		{"CreateTags", "ResourceId.1=" + *i.InstanceId, "Tag.1.Key=a"}, {"DeleteTags", "ResourceId.1=" + *i.InstanceId, "Tag.1.Key=a"},
		{"TerminateInstances", "InstanceId.1=" + *i.InstanceId},
		{"RunInstances", "ImageId=" + w.hello, "MinCount=1", "MaxCount=1", "ClientToken=" + rand.Text()},
	} {
		action := parameters[0]
		code, body := answered(t, w.request(t, append([]string{"Action=" + action}, parameters[1:]...)...).signed(t))
		if code != "" {
			t.Errorf("%v: %s", parameters, body)
			continue
		}
		m.checkReply(t, strings.Join(parameters, " "), action, body)
		if action == "RunInstances" {
			terminate(t, w.Cloud, regexp.MustCompile("<instanceId>([^<]+)<").FindStringSubmatch(body)[1])
		}
	}
	files, err := filepath.Glob(filepath.Join("..", "ec2", "testdata", "replies", "*.xml"))
	if err != nil || len(files) < 20 {
		t.Errorf("the replies that package ec2 keeps: %d, %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if action := regexp.MustCompile("^[A-Za-z]+").FindString(filepath.Base(file)); action != "Error" {
			m.checkReply(t, file, action, string(text))
		}
	}
}
