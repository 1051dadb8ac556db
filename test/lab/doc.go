// Package lab is a real Kubernetes on one Linux machine, without a container
// engine or an image registry: etcd, API server, controller manager and
// scheduler, and nodes with containerd, kubelet and kube-proxy, for tests.
//
// It owns its processes and networks, and guarantees that
//
//   - everything lives in process, mount and network namespaces of its own, so
//     nothing is left behind when the test process ends, however it ends, and
//     no packet leaves the lab;
//   - a missing prerequisite is an error that names the command to install it;
//   - what a step waits for, and what it printed, is in the error when it does
//     not come.
//
// A test binary enters the lab in TestMain, by [Run], and starts a [Cluster].
// The lab's own host, where the tests and the control plane run, is [Host];
// each node is a host beside it on one network.
package lab
