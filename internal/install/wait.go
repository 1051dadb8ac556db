package install

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// settle waits until an object works, if there is anything to wait for.
func (c *conn) settle(ctx context.Context, x object) error {
	switch x.name {
	case "Deployment":
		return c.settleDeployment(ctx, x)
	case "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration":
		return c.settleWebhook(ctx, x)
	}
	return nil
}

// deployment is what is read of a Deployment.
type deployment struct {
	Metadata metav1.ObjectMeta `json:"metadata"`
	Spec     struct {
		Replicas *int64               `json:"replicas"`
		Selector metav1.LabelSelector `json:"selector"`
	} `json:"spec"`
	Status struct {
		ObservedGeneration int64       `json:"observedGeneration"`
		Replicas           int64       `json:"replicas"`
		UpdatedReplicas    int64       `json:"updatedReplicas"`
		AvailableReplicas  int64       `json:"availableReplicas"`
		Conditions         []condition `json:"conditions"`
	} `json:"status"`
}

type condition struct {
	Type    string `json:"type"`
	Status  string `json:"status"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// rolledOut is what `kubectl rollout status` waits for.
func (d *deployment) rolledOut() bool {
	want := int64(1)
	if d.Spec.Replicas != nil {
		want = *d.Spec.Replicas
	}
	s := &d.Status
	return s.ObservedGeneration >= d.Metadata.Generation && s.UpdatedReplicas >= want && s.Replicas <= s.UpdatedReplicas && s.AvailableReplicas >= s.UpdatedReplicas
}

func (c *conn) settleDeployment(ctx context.Context, x object) error {
	var said string
	var stuck time.Time // since when; zero if it is not
	for {
		t, err := c.look(ctx, x)
		if err == nil && t == nil {
			c.o.Report(x.title(), "available")
			return nil
		}
		if err == nil {
			if now := t.String(); now != said {
				if said = now; said != "" {
					c.o.Report(x.title(), said)
				}
			}
			switch {
			case !t.hopeless:
				stuck = time.Time{}
			case stuck.IsZero():
				stuck = time.Now()
			case time.Since(stuck) >= c.o.Patience:
				return &Error{Reason: NotReady, Message: "does not start: " + said}
			}
			err = pause(ctx, c.o.Poll)
		}
		if ctx.Err() != nil {
			return &Error{Reason: NotReady, Message: fmt.Sprintf("is not available after %s: %s", c.o.Timeout, cmp.Or(said, "its pods have not said why")), Err: ctx.Err()}
		}
		if err != nil {
			return err
		}
	}
}

// look asks once why a Deployment is not available; nil if it is.
func (c *conn) look(ctx context.Context, x object) (*troubles, error) {
	have, err := c.get(ctx, x)
	if err != nil {
		return nil, err
	}
	if have == nil {
		return nil, &Error{Reason: NotReady, Message: "was removed while it was waited for"}
	}
	var d deployment
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(have.Object, &d); err != nil {
		return nil, err
	}
	if d.rolledOut() {
		return nil, nil
	}
	return c.troubles(ctx, &d)
}

// pod is what is read of a pod.
type pod struct {
	Status struct {
		Conditions []condition       `json:"conditions"`
		Init       []containerStatus `json:"initContainerStatuses"`
		Containers []containerStatus `json:"containerStatuses"`
	} `json:"status"`
}

type containerStatus struct {
	Name  string `json:"name"`
	Ready bool   `json:"ready"`
	State struct {
		Waiting *struct {
			Reason  string `json:"reason"`
			Message string `json:"message"`
		} `json:"waiting"`
		Running *struct{} `json:"running"`
	} `json:"state"`
	Last struct {
		Terminated *struct {
			Reason   string `json:"reason"`
			ExitCode int64  `json:"exitCode"`
		} `json:"terminated"`
	} `json:"lastState"`
}

// hopeless are reasons for which a container waits that seldom go away by
// themselves. The kubelet goes to and fro between the first two.
var hopeless = []string{
	"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CrashLoopBackOff",
	"CreateContainerConfigError", "CreateContainerError", "RunContainerError",
}

// troubles are why a Deployment is not available.
type troubles struct {
	texts    []string
	hopeless bool
}

func (t *troubles) String() string { return strings.Join(t.texts, "; ") }

func (t *troubles) add(format string, args ...any) {
	// Pods of one Deployment say the same.
	if s := printable(fmt.Sprintf(format, args...)); !slices.Contains(t.texts, s) {
		t.texts = append(t.texts, s)
	}
}

func (t *troubles) container(s *containerStatus) {
	switch w := s.State.Waiting; {
	case w != nil && w.Reason != "" && w.Reason != "ContainerCreating" && w.Reason != "PodInitializing":
		text := "container " + s.Name + ": " + w.Reason
		if w.Message != "" {
			text += ": " + w.Message
		}
		if l := s.Last.Terminated; l != nil {
			text += fmt.Sprintf(" (it ended with status %d, %s)", l.ExitCode, l.Reason)
		}
		t.add("%s", text)
		t.hopeless = t.hopeless || slices.Contains(hopeless, w.Reason)
	case s.State.Running != nil && !s.Ready:
		t.add("container %s runs and is not ready", s.Name)
		// One that ended before will probably end again.
		t.hopeless = t.hopeless || s.Last.Terminated != nil
	}
}

var pods = schema.GroupVersionResource{Version: "v1", Resource: "pods"}

// maxPods is how many pods are asked why they do not start.
const maxPods = 50

// troubles asks the pods of a Deployment, and the Deployment itself.
func (c *conn) troubles(ctx context.Context, d *deployment) (*troubles, error) {
	t := &troubles{}
	for _, k := range d.Status.Conditions {
		if k.Type == "ReplicaFailure" && k.Status == "True" || k.Type == "Progressing" && k.Status == "False" {
			t.add("%s: %s", k.Reason, k.Message)
		}
	}
	list, err := c.api.Resource(pods).Namespace(d.Metadata.Namespace).List(ctx, metav1.ListOptions{
		LabelSelector: labels.FormatLabels(d.Spec.Selector.MatchLabels), Limit: maxPods,
	})
	if err != nil {
		return nil, explain(err)
	}
	for i := range list.Items {
		if list.Items[i].GetDeletionTimestamp() != nil {
			continue
		}
		var p pod
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(list.Items[i].Object, &p); err != nil {
			return nil, err
		}
		for _, k := range p.Status.Conditions {
			if k.Type == "PodScheduled" && k.Status == "False" {
				t.add("no node takes the pod: %s", k.Message)
			}
		}
		for _, all := range [][]containerStatus{p.Status.Init, p.Status.Containers} {
			for j := range all {
				t.container(&all[j])
			}
		}
	}
	return t, nil
}

// settleWebhook waits until the webhook, or whoever makes its certificate, has
// written down whom the API server is to trust.
func (c *conn) settleWebhook(ctx context.Context, x object) error {
	for told := false; ; told = true {
		have, err := c.get(ctx, x)
		switch {
		case err != nil:
		case have == nil:
			return &Error{Reason: NotReady, Message: "was removed while it was waited for"}
		case trusts(have):
			c.o.Report(x.title(), "has its CA bundle")
			return nil
		default:
			if !told {
				c.o.Report(x.title(), "waiting for its CA bundle")
			}
			err = pause(ctx, c.o.Poll)
		}
		if told && ctx.Err() != nil {
			return &Error{Reason: NotReady, Message: "has no CA bundle: the webhook, or cert-manager, has not written it", Err: ctx.Err()}
		}
		if err != nil {
			return err
		}
	}
}

// trusts tells whether every webhook of a configuration has a CA bundle.
func trusts(u *unstructured.Unstructured) bool {
	list, _, _ := unstructured.NestedSlice(u.Object, "webhooks")
	for _, w := range list {
		m, _ := w.(map[string]any)
		if ca, _, _ := unstructured.NestedString(m, "clientConfig", "caBundle"); ca == "" {
			return false
		}
	}
	return len(list) > 0
}
