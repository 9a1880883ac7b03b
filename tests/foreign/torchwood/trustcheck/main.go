// Trustcheck judges a record's proof by a trust file, with an implementation of both that is not ours.
//
//	trustcheck TRUST-FILE PROOF ENTRY-IN-HEXADECIMAL
//
// It prints `ok`; any fault ends it with status 1.
package main

import (
	"encoding/hex"
	"fmt"
	"os"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	if len(os.Args) != 4 {
		fail(fmt.Errorf("usage: trustcheck TRUST-FILE PROOF ENTRY-IN-HEXADECIMAL"))
	}
	trust, err := os.ReadFile(os.Args[1])
	fail(err)
	policy, err := torchwood.ParsePolicy(trust)
	fail(err)
	proof, err := os.ReadFile(os.Args[2])
	fail(err)
	entry, err := hex.DecodeString(os.Args[3])
	fail(err)
	fail(torchwood.VerifyProof(policy, tlog.RecordHash(entry), proof))
	fmt.Println("ok")
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "trustcheck:", err)
		os.Exit(1)
	}
}
