// Package image writes container images without a container engine: one layer
// of given files for each platform, in an OCI archive that containerd, podman,
// skopeo and crane read.
//
// It guarantees that the same files give the same bytes: nothing in an archive
// tells when, where or by whom it was made.
package image

import (
	"archive/tar"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// File is one file or, if its path ends in a slash, one directory of an image.
// Parents need not be listed; they belong to root and are open to read.
type File struct {
	Path string      // absolute, clean
	Mode fs.FileMode // permissions
	Data []byte
	Link string // makes it a symbolic link to this path
}

// Image is what a container is started from, for one platform.
type Image struct {
	OS, Arch   string // as Go names them: linux, amd64
	Files      []File
	Entrypoint []string
	Env        []string // NAME=value
	User       string   // uid or uid:gid; Kubernetes checks runAsNonRoot only if it is a number
	Labels     map[string]string
}

// build makes the image.
func (m Image) build() (v1.Image, error) {
	if m.OS == "" || m.Arch == "" || len(m.Files) == 0 {
		return nil, errors.New("an image needs a platform and a file")
	}
	files, err := layerTar(m.Files)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(files)), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if img, err = mutate.AppendLayers(img, layer); err != nil {
		return nil, err
	}
	c, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	c = c.DeepCopy()
	c.OS, c.Architecture = m.OS, m.Arch
	c.Config = v1.Config{Entrypoint: m.Entrypoint, Env: m.Env, User: m.User, Labels: m.Labels, WorkingDir: "/"}
	return mutate.ConfigFile(img, c)
}

// layerTar is the layer: parents before what is in them, all of root's, with
// the time zero.
func layerTar(files []File) ([]byte, error) {
	all := map[string]File{}
	for _, f := range files {
		dir := strings.HasSuffix(f.Path, "/")
		name := strings.TrimPrefix(strings.TrimSuffix(f.Path, "/"), "/")
		if "/"+name != path.Clean("/"+name) || name == "" || !strings.HasPrefix(f.Path, "/") {
			return nil, fmt.Errorf("%q is not a clean absolute path", f.Path)
		}
		if _, twice := all[name]; twice {
			return nil, fmt.Errorf("%q is in the image twice", f.Path)
		}
		f.Path = name
		if dir {
			f.Mode |= fs.ModeDir
		}
		all[name] = f
	}
	for name := range all {
		for d := path.Dir(name); d != "."; d = path.Dir(d) {
			if f, ok := all[d]; !ok {
				all[d] = File{Path: d, Mode: fs.ModeDir | 0o755}
			} else if !f.Mode.IsDir() {
				return nil, fmt.Errorf("%q is below %q, which is no directory", name, d)
			}
		}
	}
	sorted := slices.SortedFunc(func(yield func(File) bool) {
		for _, f := range all {
			if !yield(f) {
				return
			}
		}
	}, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range sorted {
		h := &tar.Header{Name: f.Path, Mode: int64(f.Mode.Perm()), ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg, Size: int64(len(f.Data))}
		switch {
		case f.Mode.IsDir():
			h.Typeflag, h.Name = tar.TypeDir, f.Path+"/"
			if f.Mode&fs.ModeSticky != 0 {
				h.Mode |= 0o1000
			}
		case f.Link != "":
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.Link, 0o777
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.Data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// WriteArchive writes an OCI archive to file: an index of the images under the
// name ref, such as localhost/podkey:dev. The file appears whole or not at all.
func WriteArchive(file, ref string, images ...Image) (err error) {
	repository, tag, ok := strings.Cut(ref[strings.LastIndex(ref, "/")+1:], ":")
	if !ok || repository == "" || tag == "" {
		return fmt.Errorf("%q is not a name with a tag, such as localhost/podkey:dev", ref)
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, m := range images {
		img, err := m.build()
		if err != nil {
			return err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{
			MediaType: types.OCIManifestSchema1, Platform: &v1.Platform{OS: m.OS, Architecture: m.Arch},
		}})
	}
	dir, err := os.MkdirTemp(filepath.Dir(file), ".image-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	tree := filepath.Join(dir, "layout")
	l, err := layout.Write(tree, empty.Index)
	if err != nil {
		return err
	}
	// The annotations are where tools look for the name: containerd for its
	// own, the others for OCI's, which holds the tag alone.
	err = l.AppendIndex(index, layout.WithAnnotations(map[string]string{
		"io.containerd.image.name":          ref,
		"org.opencontainers.image.ref.name": tag,
	}))
	if err != nil {
		return err
	}
	out := filepath.Join(dir, "archive")
	if err := archive(out, tree); err != nil {
		return err
	}
	return os.Rename(out, file)
}

// archive packs a directory as it is, in the order of names.
func archive(file, dir string) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := tar.NewWriter(f)
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		name, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		h := &tar.Header{Name: filepath.ToSlash(name), ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg, Mode: 0o644}
		if d.IsDir() {
			h.Name, h.Typeflag, h.Mode = h.Name+"/", tar.TypeDir, 0o755
			return w.WriteHeader(h)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		h.Size = info.Size()
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		in, err := os.Open(p)
		if err != nil {
			return err
		}
		defer in.Close()
		_, err = io.Copy(w, in)
		return err
	})
	return errors.Join(err, w.Close())
}
