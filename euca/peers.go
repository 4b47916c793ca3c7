package euca

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"mallee/durable"
	"mallee/peer"
)

// Peers are the other clouds that a cloud's users may copy public images from, a
// file each in a folder.
type Peers string

// Peers of the cloud in the folder.
func (f Folder) Peers() Peers { return Peers(f.Path("peers")) }

// regionForm is what a region may be called.
var regionForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// Get the one of that name; fs.ErrNotExist where there is none.
func (p Peers) Get(region string) (*peer.Cloud, error) {
	if !regionForm.MatchString(region) {
		return nil, fmt.Errorf("region %q: %w", region, fs.ErrNotExist)
	}
	data, err := os.ReadFile(filepath.Join(string(p), region+".json"))
	if err != nil {
		return nil, err
	}
	c := &peer.Cloud{}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, fmt.Errorf("what is known of region %s can't be read: %w", region, err)
	}
	return c, nil
}

// list the names, sorted.
func (p Peers) list() ([]string, error) {
	entries, err := os.ReadDir(string(p))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, err
}

// put one; its key is nobody else's to read.
func (p Peers) put(c *peer.Cloud) error {
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(string(p), 0o700); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(string(p), c.Region+".json"), data)
}

// peerCommand is `mallee peer`.
func peerCommand() *cobra.Command {
	parent := &cobra.Command{Use: "peer", Short: "Other clouds, from which this one's users may copy public images (CopyImage)"}
	var c peer.Cloud
	add := &cobra.Command{
		Use:   "add REGION --endpoint URL",
		Short: "Name another cloud, or change what is known of it",
		Long: `Name another cloud by its region. From then on this cloud's users may copy its public images
(aws ec2 copy-image --source-region REGION), and its administrators all that the key may see there. The key's secret is read from
the environment's AWS_SECRET_ACCESS_KEY where --secret isn't given.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.Region = args[0]
			return addPeer(cmd, c)
		},
	}
	f := add.Flags()
	f.StringVar(&c.Endpoint, "endpoint", "", "where EC2 and the EBS direct API of that cloud answer")
	f.StringVar(&c.Key, "key", os.Getenv("AWS_ACCESS_KEY_ID"), "an access key there (default: AWS_ACCESS_KEY_ID)")
	f.StringVar(&c.Secret, "secret", "", "its secret (default: AWS_SECRET_ACCESS_KEY)")
	parent.AddCommand(add, &cobra.Command{
		Use: "list", Short: "List the other clouds", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return listPeers(cmd) },
	}, &cobra.Command{
		Use: "remove REGION", Short: "Forget another cloud; what was copied stays", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return removePeer(cmd, args[0]) },
	})
	return parent
}

func addPeer(cmd *cobra.Command, c peer.Cloud) error {
	if c.Secret == "" {
		c.Secret = os.Getenv("AWS_SECRET_ACCESS_KEY")
	}
	u, err := url.Parse(c.Endpoint)
	switch {
	case !regionForm.MatchString(c.Region):
		return fmt.Errorf("region %q: want lower-case letters, digits and hyphens, such as mallee-2", c.Region)
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("--endpoint %q: want the address of that cloud, such as https://cloud.example:8773", c.Endpoint)
	case c.Key == "" || c.Secret == "":
		return errors.New("an access key of that cloud is needed: --key and --secret")
	}
	c.Endpoint = strings.TrimRight(u.Scheme+"://"+u.Host, "/")
	folder, err := FolderOf(cmd)
	if err != nil {
		return err
	}
	return folder.Peers().put(&c)
}

func listPeers(cmd *cobra.Command) error {
	out, err := printerOf(cmd)
	if err != nil {
		return err
	}
	folder, err := FolderOf(cmd)
	if err != nil {
		return err
	}
	names, err := folder.Peers().list()
	if err != nil {
		return err
	}
	type shown struct {
		Region   string `json:"region"`
		Endpoint string `json:"endpoint"`
		Key      string `json:"access_key_id"`
	}
	all, lines := []shown{}, []string{}
	for _, name := range names {
		c, err := folder.Peers().Get(name)
		if err != nil {
			return err
		}
		all = append(all, shown{c.Region, c.Endpoint, c.Key})
		lines = append(lines, "REGION\t"+c.Region+"\t"+c.Endpoint+"\t"+c.Key)
	}
	if len(lines) == 0 && !out.json {
		return nil
	}
	return out.print(all, strings.Join(lines, "\n"))
}

func removePeer(cmd *cobra.Command, region string) error {
	folder, err := FolderOf(cmd)
	if err != nil {
		return err
	}
	if _, err := folder.Peers().Get(region); err != nil {
		return fmt.Errorf("no cloud is known as %s: %w", region, err)
	}
	return os.Remove(filepath.Join(string(folder.Peers()), region+".json"))
}
