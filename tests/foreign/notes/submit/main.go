// Submit shows the checkpoint of a published log to a witness, as a log of another maker does.
//
//	submit WITNESS-URL WITNESS-PUBLIC-KEY DIR OLD-SIZE
//
// The consistency proof comes from the tiles in DIR, the answer is verified with the witness's key. It prints the cosignature; if the
// witness has another size, it prints `conflict SIZE` and ends with status 2.
package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	formats "github.com/transparency-dev/formats/note"
	client "github.com/transparency-dev/witness/client/http"
	"github.com/transparency-dev/witness/witness"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	if len(os.Args) != 5 {
		fail("usage: submit WITNESS-URL WITNESS-PUBLIC-KEY DIR OLD-SIZE")
	}
	address, err := url.Parse(os.Args[1])
	check(err)
	verifier, err := formats.NewVerifierForCosignatureV1(os.Args[2])
	check(err)
	dir := os.Args[3]
	old, err := strconv.ParseInt(os.Args[4], 10, 64)
	check(err)
	checkpoint, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	check(err)
	lines := strings.Split(string(checkpoint), "\n")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err)
	root, err := base64.StdEncoding.DecodeString(lines[2])
	check(err)

	var proof [][]byte
	if old > 0 {
		reader := tlog.TileHashReader(tlog.Tree{N: size, Hash: tlog.Hash(root)}, &folder{dir: dir})
		hashes, err := tlog.ProveTree(size, old, reader)
		check(err)
		for _, hash := range hashes {
			proof = append(proof, hash[:])
		}
	}
	target := client.NewWitness(address, http.DefaultClient)
	answer, known, err := target.Update(context.Background(), uint64(old), checkpoint, proof)
	if errors.Is(err, witness.ErrCheckpointStale) {
		fmt.Printf("conflict %d\n", known)
		os.Exit(2)
	}
	check(err)
	_, err = note.Open(append(checkpoint, answer...), note.VerifierList(verifier))
	check(err)
	fmt.Print(string(answer))
}

// folder reads tiles from files.
type folder struct{ dir string }

func (f *folder) Height() int { return 8 }

func (f *folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		data, err := os.ReadFile(filepath.Join(f.dir, strings.Replace(tile.Path(), "tile/8/", "tile/", 1)))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func (f *folder) SaveTiles([]tlog.Tile, [][]byte) {}

func check(err error) {
	if err != nil {
		fail("%v", err)
	}
}

func fail(format string, values ...any) {
	fmt.Fprintf(os.Stderr, "submit: "+format+"\n", values...)
	os.Exit(1)
}
