// Mallee is a private cloud in one program.
package main

import (
	"os"

	"mallee/euca"
)

func main() { os.Exit(euca.Main(euca.Command(upCommand()))) }
