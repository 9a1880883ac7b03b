// Logcheck judges a published log that lies in a folder, with the reference packages for notes and trees.
//
//	logcheck DIR PUBLIC-KEY [PROOFS]
//
// DIR has checkpoint and tile/... as tlog-tiles lays them out. Every tile is authenticated against the checkpoint, every entry against
// its tile. PROOFS has lines of proofs to check, made by others:
//
//	inclusion INDEX HASH,HASH,...
//	consistency OLD-SIZE OLD-ROOT HASH,HASH,...
//
// in hexadecimal, `-` for none. It prints the number of things checked; any fault ends it with status 1.
package main

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const tileHeight = 8

func main() {
	if len(os.Args) < 3 {
		fail("usage: logcheck DIR PUBLIC-KEY [PROOFS]")
	}
	dir := os.Args[1]
	tree := openCheckpoint(dir, os.Args[2])
	reader := &folder{dir: dir}
	leaves := checkTiles(tree, reader)
	checkEntries(dir, leaves)
	proofs := checkOwnProofs(tree, reader, leaves)
	if len(os.Args) > 3 {
		proofs += checkProofs(tree, leaves, os.Args[3])
	}
	fmt.Printf("%d leaves, %d proofs\n", len(leaves), proofs)
}

// openCheckpoint verifies the note and returns what it states.
func openCheckpoint(dir, key string) tlog.Tree {
	verifier, err := note.NewVerifier(key)
	check(err, "public key")
	data, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	check(err, "checkpoint")
	opened, err := note.Open(data, note.VerifierList(verifier))
	check(err, "checkpoint")
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[3] != "" || lines[0] != verifier.Name() {
		fail("checkpoint: not three lines that begin with the origin: %q", opened.Text)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err, "size")
	root, err := base64.StdEncoding.DecodeString(lines[2])
	check(err, "root")
	if len(root) != tlog.HashSize || strconv.FormatInt(size, 10) != lines[1] {
		fail("checkpoint: malformed: %q", opened.Text)
	}
	return tlog.Tree{N: size, Hash: tlog.Hash(root)}
}

// checkTiles reads every leaf's hash through authenticated tiles, and every tile of the levels above.
func checkTiles(tree tlog.Tree, reader *folder) []tlog.Hash {
	hashes := tlog.TileHashReader(tree, reader)
	root, err := tlog.TreeHash(tree.N, hashes)
	check(err, "root over the tiles")
	if root != tree.Hash {
		fail("the tiles give another root than the checkpoint")
	}
	var leaves []tlog.Hash
	for level := 0; tree.N>>(level*tileHeight) > 0; level++ {
		count := tree.N >> (level * tileHeight)
		for first := int64(0); first < count; first += 4096 {
			var indexes []int64
			for n := first; n < min(first+4096, count); n++ {
				indexes = append(indexes, tlog.StoredHashIndex(level*tileHeight, n))
			}
			part, err := hashes.ReadHashes(indexes)
			check(err, fmt.Sprintf("tiles of level %d", level))
			if level == 0 {
				leaves = append(leaves, part...)
			}
		}
	}
	return leaves
}

// checkEntries hashes every entry and compares it with its leaf.
func checkEntries(dir string, leaves []tlog.Hash) {
	size := int64(len(leaves))
	for first := int64(0); first < size; first += 1 << tileHeight {
		tile := tlog.Tile{H: tileHeight, L: -1, N: first >> tileHeight, W: int(min(1<<tileHeight, size-first))}
		data, err := os.ReadFile(filepath.Join(dir, path(tile)))
		check(err, "entries")
		for n := first; n < first+int64(tile.W); n++ {
			if len(data) < 2 || len(data)-2 < int(binary.BigEndian.Uint16(data)) {
				fail("entry %d: cut short", n)
			}
			length := int(binary.BigEndian.Uint16(data))
			if tlog.RecordHash(data[2:2+length]) != leaves[n] {
				fail("entry %d does not hash to its leaf", n)
			}
			data = data[2+length:]
		}
		if len(data) > 0 {
			fail("entries of tile %d: %d bytes too many", tile.N, len(data))
		}
	}
}

// checkOwnProofs makes proofs out of the tiles with the reference package, and checks them with it.
func checkOwnProofs(tree tlog.Tree, reader *folder, leaves []tlog.Hash) int {
	hashes := tlog.TileHashReader(tree, reader)
	count := 0
	for step := int64(0); step < 8; step++ {
		n := (tree.N - 1) * step / 7
		record, err := tlog.ProveRecord(tree.N, n, hashes)
		check(err, "inclusion proof")
		check(tlog.CheckRecord(record, tree.N, tree.Hash, n, leaves[n]), "inclusion proof")
		old, err := tlog.TreeHash(n+1, hashes)
		check(err, "old root")
		grown, err := tlog.ProveTree(tree.N, n+1, hashes)
		check(err, "consistency proof")
		check(tlog.CheckTree(grown, tree.N, tree.Hash, n+1, old), "consistency proof")
		count += 2
	}
	return count
}

// checkProofs checks proofs that others made.
func checkProofs(tree tlog.Tree, leaves []tlog.Hash, file string) int {
	data, err := os.Open(file)
	check(err, "proofs")
	defer data.Close()
	lines := bufio.NewScanner(data)
	count := 0
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		switch {
		case len(words) == 3 && words[0] == "inclusion":
			n, err := strconv.ParseInt(words[1], 10, 64)
			check(err, "index")
			check(tlog.CheckRecord(parseHashes(words[2]), tree.N, tree.Hash, n, leaves[n]), "inclusion of "+words[1])
		case len(words) == 4 && words[0] == "consistency":
			n, err := strconv.ParseInt(words[1], 10, 64)
			check(err, "size")
			old := parseHashes(words[2])
			check(tlog.CheckTree(parseHashes(words[3]), tree.N, tree.Hash, n, old[0]), "consistency with "+words[1])
		default:
			fail("not a proof: %q", lines.Text())
		}
		count++
	}
	check(lines.Err(), "proofs")
	return count
}

func parseHashes(text string) []tlog.Hash {
	if text == "-" {
		return nil
	}
	var hashes []tlog.Hash
	for _, word := range strings.Split(text, ",") {
		data, err := hex.DecodeString(word)
		if err != nil || len(data) != tlog.HashSize {
			fail("not a hash: %q", word)
		}
		hashes = append(hashes, tlog.Hash(data))
	}
	return hashes
}

// folder reads tiles from files.
type folder struct{ dir string }

func (f *folder) Height() int { return tileHeight }

func (f *folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		data, err := os.ReadFile(filepath.Join(f.dir, path(tile)))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func (f *folder) SaveTiles([]tlog.Tile, [][]byte) {}

// path is that of tlog-tiles: the reference package names the height, and calls entries data.
func path(tile tlog.Tile) string {
	name := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
	return strings.Replace(name, "tile/data/", "tile/entries/", 1)
}

func check(err error, what string) {
	if err != nil {
		fail("%s: %v", what, err)
	}
}

func fail(format string, values ...any) {
	fmt.Fprintf(os.Stderr, "logcheck: "+format+"\n", values...)
	os.Exit(1)
}
