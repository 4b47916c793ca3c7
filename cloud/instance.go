package cloud

import (
	"net/netip"
	"strings"
	"time"
)

// Wish is what was last asked of an instance. Only the API and the loops that
// act for the user (a guest that powered off, a launch that failed) write it.
type Wish string

const (
	WishRunning    Wish = "running"
	WishStopped    Wish = "stopped"
	WishTerminated Wish = "terminated"
)

// ShutdownBehavior says what a guest that powers itself off comes to.
type ShutdownBehavior string

const (
	ShutdownStop      ShutdownBehavior = "stop"
	ShutdownTerminate ShutdownBehavior = "terminate"
)

// Windows is the Platform of instances that run it; others have none.
const Windows = "windows"

// Instance is one virtual machine as it was wished for. All but the wish
// (Wish, Wishes, WishedAt, Reason, Reboots) is fixed by the launch; a start after
// a stop, which is a launch too, places it again (Node, Public, LaunchedAt).
type Instance struct {
	ID          InstanceID    `json:"id"`
	Reservation ReservationID `json:"reservation"`
	Account     AccountID     `json:"account"`
	LaunchIndex int           `json:"launch_index"`
	LaunchedAt  time.Time     `json:"launched_at"`

	Image          ImageRef       `json:"image"`
	Kernel         *ImageRef      `json:"kernel,omitempty"`
	Ramdisk        *ImageRef      `json:"ramdisk,omitempty"`
	Architecture   string         `json:"architecture"`
	Virtualization Virtualization `json:"virtualization"`
	Platform       string         `json:"platform,omitempty"`
	RootDevice     string         `json:"root_device"`
	EBS            bool           `json:"ebs,omitempty"`      // its root is a volume, the one attached at RootDevice; the image's bytes aren't needed
	Mappings       []Mapping      `json:"mappings,omitempty"` // ephemeral disks and NoDevice, as it was launched; volumes say themselves where they are attached

	Type   TypeName   `json:"type"`
	Size   Size       `json:"size"` // the type's figures at launch; without DiskGiB where it has no disk of its own
	Zone   string     `json:"zone"`
	Node   NodeID     `json:"node"`
	MAC    string     `json:"mac"`
	Local  netip.Addr `json:"local"` // private address
	Public netip.Addr `json:"public,omitzero"`

	KeyName     string           `json:"key_name,omitempty"`
	PublicKey   string           `json:"public_key,omitempty"` // OpenSSH authorized_keys form
	UserData    []byte           `json:"user_data,omitempty"`
	Groups      []Group          `json:"groups,omitempty"`
	ClientToken string           `json:"client_token,omitempty"`
	Shutdown    ShutdownBehavior `json:"shutdown"`

	// What the metadata service does for the guest's programs.
	TokensRequired bool              `json:"tokens_required,omitempty"`
	MetadataOff    bool              `json:"metadata_off,omitempty"`  // it answers nothing
	HopLimit       int               `json:"hop_limit,omitempty"`     // of replies with tokens; 0 is 1: see Hops
	MetadataTags   bool              `json:"metadata_tags,omitempty"` // it tells the instance's tags
	Tags           map[string]string `json:"tags,omitempty"`          // these, in assignments alone

	Wish     Wish      `json:"wish"`
	Wishes   int       `json:"wishes"` // counts changes of Wish, from 1 at launch
	WishedAt time.Time `json:"wished_at"`
	Reason   Reason    `json:"reason,omitzero"`   // why the wish is no longer running
	Reboots  int       `json:"reboots,omitempty"` // counts RebootInstances

	PublicWanted bool `json:"public_wanted,omitempty"` // at each start, where one is free
	Vacated      bool `json:"vacated,omitempty"`       // stopped, and its room and public address given back
}

// Reason is EC2's StateReason: a code for programs, and words that a user can
// act on.
type Reason struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Codes of reasons, as EC2 documents them for StateReason.
const (
	ReasonUserTerminated  = "Client.UserInitiatedShutdown"
	ReasonGuestPoweredOff = "Client.InstanceInitiatedShutdown"
	ReasonInvalidImage    = "Client.InternalError"
	ReasonInternalError   = "Server.InternalError"
	ReasonNoCapacity      = "Server.InsufficientInstanceCapacity"
)

// Want changes the wish of a copy of the instance; the same wish again is no
// change, and nothing is wished of an instance after its termination.
func (i Instance) Want(w Wish, why Reason, now time.Time) Instance {
	if i.Wish == w || i.Wish == WishTerminated {
		return i
	}
	i.Wish, i.Reason, i.WishedAt = w, why, now
	i.Wishes++
	return i
}

// HostName of the instance inside the cloud, as EC2 makes it: ip-172-31-0-10.
func (i *Instance) HostName() string {
	return "ip-" + strings.ReplaceAll(i.Local.String(), ".", "-")
}

// Interface is the id of the instance's network interface, which follows from its
// own.
func (i *Instance) Interface() InterfaceID {
	return InterfaceID(DerivedID(PrefixInterface, "interface of "+string(i.ID)))
}

// Hops that a reply with a token may make, EC2's HttpPutResponseHopLimit.
func (i *Instance) Hops() int { return max(i.HopLimit, 1) }

// Domain of the names inside the cloud: that of EC2's first region, which
// programs know.
const Domain = "ec2.internal"

// PrivateName of the instance, whole: ip-172-31-0-10.ec2.internal. Its owner and
// its guest are told the same.
func (i *Instance) PrivateName() string { return i.HostName() + "." + Domain }

// Phase is what a node sees of a machine.
type Phase string

const (
	PhasePreparing Phase = "preparing" // assigned; image, disk, network or QEMU not ready yet
	PhaseUp        Phase = "up"        // the virtual machine runs
	PhaseExited    Phase = "exited"    // the guest powered itself off
	PhaseFailed    Phase = "failed"    // it can't be started; Reason says why
	PhaseGone      Phase = "gone"      // nothing of it is left, and nothing will start it
)

// Observation is what is known of an instance from its node's reports. Gone is
// never reported: it is concluded from an absence (package link says when).
type Observation struct {
	Instance InstanceID `json:"instance"`
	Phase    Phase      `json:"phase"`
	Reason   Reason     `json:"reason,omitzero"`
	At       time.Time  `json:"at"`
	UpWish   int        `json:"up_wish,omitempty"`  // Wishes of the instance when it was last seen up
	Password string     `json:"password,omitempty"` // that a Windows guest has printed, encrypted to its key pair, in base64
}

// InstanceState is EC2's word for where an instance stands.
type InstanceState string

const (
	Pending      InstanceState = "pending"
	Running      InstanceState = "running"
	ShuttingDown InstanceState = "shutting-down"
	Terminated   InstanceState = "terminated"
	Stopping     InstanceState = "stopping"
	Stopped      InstanceState = "stopped"
)

// Code is the number that EC2 sends beside a state's name.
func (s InstanceState) Code() int {
	return map[InstanceState]int{Pending: 0, Running: 16, ShuttingDown: 32, Terminated: 48, Stopping: 64, Stopped: 80}[s]
}

// State derives where an instance stands from what was wished and what was
// seen; a zero Observation means that nothing was reported yet.
//
//	wish        seen                      state
//	running     up, now or once since     running   (a machine that its node restarts
//	            the wish                             stays running, as in EC2)
//	running     anything else             pending
//	stopped     gone                      stopped
//	stopped     anything else             stopping
//	terminated  gone                      terminated
//	terminated  anything else             shutting-down
func (i *Instance) State(seen Observation) InstanceState {
	gone := seen.Phase == PhaseGone
	switch {
	case i.Wish == WishTerminated && gone:
		return Terminated
	case i.Wish == WishTerminated:
		return ShuttingDown
	case i.Wish == WishStopped && gone:
		return Stopped
	case i.Wish == WishStopped:
		return Stopping
	case seen.UpWish == i.Wishes:
		return Running
	}
	return Pending
}

// Reservation is what one RunInstances call made.
type Reservation struct {
	ID        ReservationID `json:"id"`
	Account   AccountID     `json:"account"`
	Groups    []Group       `json:"groups,omitempty"`
	Instances []InstanceID  `json:"instances"`
}

// Group names a security group on an instance.
type Group struct {
	ID   GroupID `json:"id"`
	Name string  `json:"name"`
}
