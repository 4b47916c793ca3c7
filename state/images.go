package state

import "mallee/cloud"

// imageName is the kind of the guards that make a name unique among the images
// of an account.
const imageName = "image-name"

func imageNameKey(i *cloud.Image) string { return string(i.Account) + "/" + i.Name }

// imageSnapshot is the kind of the guards in which an image that is made of a
// snapshot and the deletion of the snapshot meet: the last such image owns it.
const imageSnapshot = "image-snapshot"

// Enroll puts a new image into the state, under a name that no other registered
// image of its account has; a name that one has is a *TakenError. The caller has
// seen in this transaction that the image's snapshots are there.
func Enroll(tx *Tx, i *cloud.Image) error {
	if err := tx.Claim(imageName, imageNameKey(i), string(i.ID)); err != nil {
		return err
	}
	for _, id := range i.Snapshots() {
		Guards.Put(tx, Guard{Kind: imageSnapshot, Name: string(id), Owner: string(i.ID)})
	}
	Images.Put(tx, *i)
	return nil
}

// Withdraw gives the name of an image that is deregistered back. The image stays
// on record for the instances that refer to it.
func Withdraw(tx *Tx, i *cloud.Image) {
	Images.Put(tx, *i)
	tx.Release(imageName, imageNameKey(i))
}
