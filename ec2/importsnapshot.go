package ec2

import (
	"mallee/cloud"
	"mallee/wire"
)

// importWords are EC2's for imports; one that failed is deleted, and its message
// says why.
var importWords = taskWords{"active", "active", "deleting", "deleted", "deleted", "completed"}

// snapshotWords differ for a failure: the SDKs' waiter knows this word.
var snapshotWords = taskWords{"active", "active", "deleting", "deleted", "error", "completed"}

// clientData is what a client says of its upload; EC2 keeps it for itself.
type clientData struct {
	Comment     string
	UploadStart string
	UploadEnd   string
	UploadSize  string
}

type importSnapshotInput struct {
	common
	idempotent
	tagged
	Description   string `wire:"Description,max=255"`
	ClientData    clientData
	DiskContainer struct {
		Description string `wire:"Description,max=255"`
		Format      string
		URL         string `wire:"Url"`
		UserBucket  *userBucket
	}
	Encrypted bool
	RoleName  string // the cloud reads with the caller's rights

	source cloud.DiskFile
}

type importSnapshotReply struct {
	Description string             `xml:"description,omitempty"`
	ID          string             `xml:"importTaskId"`
	Detail      snapshotTaskDetail `xml:"snapshotTaskDetail"`
	Tags        []tag              `xml:"tagSet>item"`
}

type snapshotTaskDetail struct {
	Description   string           `xml:"description,omitempty"`
	DiskImageSize float64          `xml:"diskImageSize"`
	Encrypted     bool             `xml:"encrypted"`
	Format        string           `xml:"format,omitempty"`
	Progress      string           `xml:"progress,omitempty"`
	SnapshotID    string           `xml:"snapshotId,omitempty"`
	Status        string           `xml:"status"`
	StatusMessage string           `xml:"statusMessage,omitempty"`
	URL           string           `xml:"url,omitempty"`
	UserBucket    *userBucketReply `xml:"userBucket"`
}

// findDisk looks at the file that is to be imported.
func findDisk(c *call, in *importSnapshotInput) (err error) {
	if err := c.may(c.arn(c.account(), "import-snapshot-task", "*")); err != nil {
		return err
	}
	d := &in.DiskContainer
	if in.source, err = c.diskSource("DiskContainer", d.URL, d.UserBucket); err != nil {
		return err
	}
	in.source.Description = d.Description
	in.source.Format, err = checkFormat("DiskContainer.Format", d.Format)
	return firstError(err, refuseEncryption(in.Encrypted))
}

// refuseEncryption of what is imported, in words.
func refuseEncryption(asked bool) error {
	if asked {
		return wire.UnsupportedOperation("Encrypted imports are not supported: make an encrypted copy of the volume afterwards")
	}
	return nil
}

func importSnapshot(c *call, in *importSnapshotInput) (*importSnapshotReply, error) {
	t, err := c.newTask(cloud.ImportSnapshot, "")
	if err != nil {
		return nil, err
	}
	t.Description, t.Sources = in.Description, []cloud.DiskFile{in.source}
	if err := c.add(t, "import-snapshot-task"); err != nil {
		return nil, err
	}
	return c.snapshotTask(t), nil
}

func importedSnapshotBefore(c *call, id string) (any, error) {
	t, err := c.task(id, "InvalidConversionTaskId", cloud.ImportSnapshot)
	if err != nil {
		return nil, err
	}
	return c.snapshotTask(t), nil
}

func (c *call) snapshotTask(t *cloud.Task) *importSnapshotReply {
	seen, source := c.seenOf(t), t.Sources[0]
	_, message := t.Seen(seen)
	return &importSnapshotReply{Description: t.Description, ID: string(t.ID), Tags: c.tagSet(string(t.ID)), Detail: snapshotTaskDetail{
		Description: source.Description, DiskImageSize: float64(source.Size), Format: source.Format,
		Progress: percent(t, seen), SnapshotID: t.Made["snapshot"], Status: snapshotWords.of(t, seen), StatusMessage: message,
		URL: shownURL(source.URL), UserBucket: bucketReply(source),
	}}
}

type describeImportInput struct {
	common
	ImportTaskID []string `wire:"ImportTaskId,max=1000"`
	Filters      []filter // EC2 spells it so here
	MaxResults   *int
	NextToken    string
}

func (in *describeImportInput) chosen() *selection {
	return &selection{filtered{in.Filters}, in.MaxResults, in.NextToken}
}

type describeImportSnapshotReply struct {
	Tasks     []*importSnapshotReply `xml:"importSnapshotTaskSet>item"`
	NextToken string                 `xml:"nextToken,omitempty"`
}

// taskKind chooses among tasks.
var taskKind = kind[*cloud.Task]{
	key:  func(t *cloud.Task) string { return string(t.ID) },
	tags: func(c *call, t *cloud.Task) map[string]string { return c.tagsOf(string(t.ID)) },
	fields: fields[*cloud.Task]{
		"task-state": func(c *call, t *cloud.Task) []string {
			words := importWords
			if t.Kind == cloud.ImportSnapshot {
				words = snapshotWords
			}
			return one(words.of(t, c.seenOf(t)))
		},
	},
}

func describeImportSnapshotTasks(c *call, in *describeImportInput) (*describeImportSnapshotReply, error) {
	list, err := c.tasks(in.ImportTaskID, "InvalidConversionTaskId", cloud.ImportSnapshot)
	if err != nil {
		return nil, err
	}
	p, err := taskKind.page(c, in.chosen(), list)
	if err != nil {
		return nil, err
	}
	out := &describeImportSnapshotReply{NextToken: p.next}
	for _, t := range p.items {
		out.Tasks = append(out.Tasks, c.snapshotTask(t))
	}
	return out, nil
}

type cancelImportInput struct {
	common
	ImportTaskID string `wire:"ImportTaskId,required"`
	CancelReason string
}

type cancelImportReply struct {
	ID       string `xml:"importTaskId"`
	State    string `xml:"state"`
	Previous string `xml:"previousState"`
}

// cancelImportTask gives an import up; nothing is left of it.
func cancelImportTask(c *call, in *cancelImportInput) (*cancelImportReply, error) {
	t, err := c.task(in.ImportTaskID, "InvalidConversionTaskId", cloud.ImportImage, cloud.ImportSnapshot)
	if err != nil {
		return nil, err
	}
	before, now, err := c.cancel(t, importWords)
	if err != nil {
		return nil, err
	}
	return &cancelImportReply{string(t.ID), now, before}, nil
}
