package euca

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"mallee/image"
)

func catalogCommand() *cobra.Command {
	parent := &cobra.Command{
		Use:   "catalog",
		Short: "List the images that are ready to be installed",
		Args:  cobra.NoArgs,
		RunE:  listCatalog,
	}
	add := &cobra.Command{
		Use:   "add URL",
		Short: "Add a catalogue: a signed index at an address, its signature beside it",
		Args:  cobra.ExactArgs(1),
		RunE:  addCatalog,
	}
	add.Flags().String("key", "", "the minisign public key that signs it, or the file that holds it")
	parent.AddCommand(add, &cobra.Command{
		Use:   "remove NAME",
		Short: "Forget an added catalogue; images that were installed from it stay",
		Args:  cobra.ExactArgs(1),
		RunE:  removeCatalog,
	}, &cobra.Command{
		Use:   "update [NAME]",
		Short: "Fetch the newest edition of an added catalogue, or of all",
		Args:  cobra.MaximumNArgs(1),
		RunE:  updateCatalogs,
	})
	return parent
}

// catalogLine is an image as --output json prints it.
type catalogLine struct {
	Catalog string `json:"catalog"`
	*image.Entry
	Source   string `json:"source,omitempty"`
	Checksum string `json:"checksum,omitempty"`
	Problem  string `json:"problem,omitempty"`
}

func listCatalog(cmd *cobra.Command, _ []string) error {
	out, err := printerOf(cmd)
	if err != nil {
		return err
	}
	folder, err := FolderOf(cmd)
	if err != nil {
		return err
	}
	all, err := catalogs(folder).List()
	if err != nil {
		return err
	}
	lines := []catalogLine{}
	for _, l := range all {
		line := catalogLine{Catalog: l.Catalog}
		if l.Name != "" {
			line.Entry, line.Source, line.Checksum = &l.Entry, l.Source(), l.Checksum()
		}
		if l.Problem != nil {
			line.Problem = l.Problem.Error()
		}
		lines = append(lines, line)
	}
	return out.print(lines, catalogTable(all))
}

// catalogTable is the list for people.
func catalogTable(all []image.Listed) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tVERSION\tARCH\tTYPE\tSIZE\tCATALOG\tSOURCE\tCHECKSUM\tNEEDS")
	var problems []string
	for _, l := range all {
		if l.Problem != nil && (len(problems) == 0 || problems[len(problems)-1] != l.Problem.Error()) {
			problems = append(problems, l.Problem.Error())
		}
		if l.Name != "" {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", l.Name, l.Version, l.Architecture, l.Virtualization, sizeOf(l.Size),
				l.Catalog, l.Source(), shortened(l.Checksum()), strings.Join(l.Needs, "; "))
		}
	}
	w.Flush()
	for _, p := range problems {
		fmt.Fprintln(&b, "not to be installed: "+p)
	}
	return strings.TrimRight(b.String(), "\n")
}

// shortened is a checksum as a table shows it; JSON has all of it.
func shortened(sum string) string {
	if hash, hex, ok := strings.Cut(sum, ":"); ok && len(hex) >= 64 && !strings.Contains(hex, "/") {
		return hash + ":" + hex[:12] + "…"
	}
	return sum
}

// sizeOf bytes for people, in the unit that makes the figure short.
func sizeOf(bytes int64) string {
	const mib, gib = 1 << 20, 1 << 30
	switch {
	case bytes >= gib:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(bytes)/gib), ".0") + " GiB"
	case bytes >= mib:
		return fmt.Sprintf("%d MiB", bytes/mib)
	}
	return fmt.Sprintf("%d KiB", (bytes+1023)/1024)
}

// catalogAdded is what adding and updating print.
type catalogAdded struct {
	Name    string    `json:"name"`
	URL     string    `json:"url"`
	Key     string    `json:"key"` // its id
	Serial  int64     `json:"serial"`
	Expires time.Time `json:"expires"`
	Comment string    `json:"comment"` // the signature's trusted one
	Images  int       `json:"images"`
}

func added(s image.Source) catalogAdded {
	a := catalogAdded{Name: s.Index.Name, URL: s.URL, Serial: s.Index.Serial, Expires: s.Index.Expires, Comment: s.Comment, Images: len(s.Index.Entries)}
	if k, err := image.ParsePublicKey(s.Key); err == nil {
		a.Key = k.ID()
	}
	return a
}

func (a catalogAdded) String() string {
	return fmt.Sprintf("CATALOG\t%s\tserial %d\t%d images\tgood until %s\tkey %s\t%s", a.Name, a.Serial, a.Images, a.Expires.Format(time.RFC3339), a.Key, a.Comment)
}

func addCatalog(cmd *cobra.Command, args []string) error {
	out, err := printerOf(cmd)
	if err != nil {
		return err
	}
	folder, err := FolderOf(cmd)
	if err != nil {
		return err
	}
	given, err := cmd.Flags().GetString("key")
	if err != nil {
		return err
	}
	key, err := readKey(given)
	if err != nil {
		return err
	}
	s, err := catalogs(folder).Add(cmd.Context(), args[0], key)
	if err != nil {
		return err
	}
	return out.print(added(s), added(s).String())
}

// readKey of minisign: the key itself, or a file's name.
func readKey(given string) (image.PublicKey, error) {
	if given == "" {
		return image.PublicKey{}, errors.New("--key: name the minisign public key that signs the catalogue, or its file; an unsigned one isn't taken")
	}
	key, err := image.ParsePublicKey(given)
	if err == nil {
		return key, nil
	}
	text, fileErr := os.ReadFile(given)
	if fileErr != nil {
		return key, fmt.Errorf("--key %s is neither a key (%w) nor a file that can be read (%w)", given, err, fileErr)
	}
	if key, err = image.ParsePublicKey(string(text)); err != nil {
		return key, fmt.Errorf("--key %s: %w", given, err)
	}
	return key, nil
}

func removeCatalog(cmd *cobra.Command, args []string) error {
	out, err := printerOf(cmd)
	if err != nil {
		return err
	}
	folder, err := FolderOf(cmd)
	if err != nil {
		return err
	}
	if err := catalogs(folder).Remove(cmd.Context(), args[0]); err != nil {
		return err
	}
	return out.print(map[string]string{"removed": args[0]}, "REMOVED\t"+args[0])
}

// updateCatalogs tries all of them, whatever becomes of one.
func updateCatalogs(cmd *cobra.Command, names []string) error {
	out, err := printerOf(cmd)
	if err != nil {
		return err
	}
	folder, err := FolderOf(cmd)
	if err != nil {
		return err
	}
	c := catalogs(folder)
	if len(names) == 0 {
		if names, err = c.Names(); err != nil {
			return err
		}
	}
	done, text := []catalogAdded{}, []string{}
	for _, name := range names {
		s, updateErr := c.Update(cmd.Context(), name)
		if updateErr != nil {
			err = errors.Join(err, fmt.Errorf("update %s: %w", name, updateErr))
			continue
		}
		done, text = append(done, added(s)), append(text, added(s).String())
	}
	if out.json {
		return errors.Join(json.NewEncoder(out.out).Encode(done), err)
	}
	for _, line := range text {
		fmt.Fprintln(out.out, line)
	}
	return err
}
