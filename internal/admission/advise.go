package admission

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/text"
)

// Kubernetes shows no more of one warning, and of all of an answer.
const (
	maxWarning  = 256
	maxWarnings = 4096
)

// maxName is how much of an object's name a warning repeats: room for the rest
// counts for more, and the author knows what was just applied.
const maxName = 63

// advice gathers the warnings of one object.
type advice struct {
	rules    *Rules
	subject  string // such as Deployment shop/web
	warnings []string
	size     int
	full     bool
}

// say adds a warning about the subject: of several wordings the first that
// fits. The line to add comes first in each, for what does not fit is cut off
// at the end.
func (a *advice) say(wordings ...string) {
	if a.full {
		return
	}
	var w string
	for _, s := range wordings {
		if w = text.Printable(a.subject + ": " + s); len(w) <= maxWarning {
			break
		}
	}
	if len(w) > maxWarning {
		w = text.Clip(w, maxWarning-len("..."))
	}
	if slices.Contains(a.warnings, w) {
		return
	}
	const more = "There is more of this kind."
	if a.size+len(w) > maxWarnings-len(more) {
		a.full, w = true, more
	}
	a.warnings = append(a.warnings, w)
	a.size += len(w)
}

// makers are the kinds that make pods of a template.
var makers = []string{"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob"}

// Advise answers a review with warnings about the mistakes that leave pods
// without an identity, or with another than was meant. It refuses nothing: what
// it does not understand it has nothing to say about.
//
// The answer is written over into, as by [Rules.Mutate].
func (r *Rules) Advise(ctx context.Context, review []byte, lookup Lookup, into []byte) Response {
	q, err := r.decodeReview(review, true, into)
	if err != nil {
		if q.uid == "" {
			out := q.response()
			out.Outcome, out.Message = Skipped, err.Error()
			return out
		}
		return q.allow(Skipped)
	}
	if q.operation != "" && q.operation != "CREATE" && q.operation != "UPDATE" || q.subResource != "" || !q.hasObject {
		return q.allow(Skipped)
	}
	o := &q.object
	a := &advice{rules: r, subject: o.kind + " " + clip(q.namespace) + "/" + text.Clip(o.displayName(), maxName)}
	switch {
	case o.kind == "ServiceAccount":
		a.account(o, q.namespace)
	case o.kind == "Pod":
		if _, mirror := o.annotations.get(mirrorAnnotation); mirror {
			return q.allow(SkippedMirror)
		}
		a.pod(ctx, &o.pod, "metadata", q.namespace, lookup)
	case slices.Contains(makers, o.kind) && o.template != nil:
		a.maker(o)
		a.pod(ctx, o.template, o.at+".metadata", q.namespace, lookup)
	default:
		return q.allow(Skipped)
	}
	return q.advise(a.warnings)
}

const useLine = useLabel + `: "true"`

// account warns about a service account.
func (a *advice) account(o *object, namespace string) {
	a.keys(o.annotations, "ServiceAccount", "metadata")
	if id, ok := o.annotations.get(clientIDAnnotation); ok {
		a.clientID(id, "annotation "+clientIDAnnotation)
	}
	sa := ServiceAccount{Namespace: namespace, Name: o.displayName(), Annotations: map[string]string{}}
	for _, p := range o.annotations {
		sa.Annotations[p.key] = p.value
	}
	if d := sa.check(); d != nil {
		a.say("its pods will be refused: " + d.message)
	}
	if v, _ := o.annotations.get(expirationAnnotation); v != "" {
		if _, err := parseExpiration(v); err != nil {
			a.say("annotation " + expirationAnnotation + ": its pods will be refused: " + err.Error())
		}
	}
}

func (a *advice) clientID(id, where string) {
	// uuid.Parse knows more forms than Entra ID does.
	if len(id) == 36 && uuid.Validate(id) == nil {
		return
	}
	a.say(where + " must be the identity's client id, such as 01234567-89ab-cdef-0123-456789abcdef, and is " + strconv.Quote(text.Clip(id, 40)))
}

// maker warns about the metadata of an object that makes pods, which its pods
// do not have.
func (a *advice) maker(o *object) {
	if _, ok := o.labels.get(useLabel); ok {
		if _, ok := o.template.labels.get(useLabel); !ok {
			a.say("add "+useLine+" to the labels of "+o.at+".metadata: the label of the "+o.kind+" itself gives its pods no identity",
				"add "+useLine+" to the labels of "+o.at+".metadata")
		}
	}
	a.keys(o.annotations, "maker", o.at+".metadata")
}

// no are the values of the label that are meant as they are.
var no = []string{"false", "no", "off", "disabled", "0"}

// pod warns about a pod, or the template of one, whose metadata is at a place.
func (a *advice) pod(ctx context.Context, p *pod, at, namespace string, lookup Lookup) {
	a.keys(p.annotations, "Pod", at)
	sa := ServiceAccount{Namespace: namespace, Name: p.serviceAccount}
	found, err := lookup(ctx, sa.Namespace, sa.Name)
	sa.Annotations = found.Annotations
	use, labelled := p.labels.get(useLabel)
	switch {
	case use == "true":
	case labelled && !slices.Contains(no, strings.ToLower(use)):
		a.say("write " + useLine + " in the labels of " + at + ": the value " + strconv.Quote(text.Clip(use, 20)) + " is not \"true\", so there is no identity")
		return
	case !labelled && err == nil && sa.Annotations[clientIDAnnotation] != "":
		a.say("add "+useLine+" to the labels of "+at+": "+sa.String()+" has an identity, but only pods with that label get it",
			"add "+useLine+" to the labels of "+at)
		return
	default:
		return
	}

	if _, ok := p.labels.get("aadpodidbinding"); ok {
		a.say("remove the label aadpodidbinding from " + at + ": besides " + useLabel + " it gives a second identity, and clients differ in which they use")
	}
	switch {
	case errors.Is(err, ErrNotFound):
		a.say("kubectl create serviceaccount "+clip(sa.Name)+" -n "+clip(namespace)+": there is no such service account, and pods are refused without it",
			"kubectl create serviceaccount "+clip(sa.Name)+" -n "+clip(namespace))
		return
	case err != nil:
		return
	}
	a.identity(p, &sa)
	d := sa.check()
	if d == nil {
		_, d = a.rules.patch(p, &sa, nil)
	}
	if d != nil {
		a.say("pods will be refused: " + d.message)
	}
	if v, ok := p.annotations.get(injectAnnotation); ok && p.windows && !strings.EqualFold(v, "false") {
		a.say("remove the annotation " + injectAnnotation + ": there is no proxy for Windows")
	}
	skip := skipped(p)
	for _, l := range [][]container{p.initContainers.items, p.containers.items} {
		for i := range l {
			if a.full {
				return
			}
			if c := &l[i]; !skip[c.name] {
				a.environment(p, c, &sa)
			}
		}
	}
}

// identity warns about the service account of a pod with the label.
func (a *advice) identity(p *pod, sa *ServiceAccount) {
	id := sa.Annotations[clientIDAnnotation]
	if sa.Name == "default" {
		if id == "" {
			a.say("set serviceAccountName to a service account with the annotation " + clientIDAnnotation + ": it is default now, which has none")
		} else {
			a.say("set serviceAccountName to a service account of its own: it is default, whose identity every pod of the namespace can have")
		}
		return
	}
	if id == "" {
		command := "kubectl annotate serviceaccount " + clip(sa.Name) + " -n " + clip(sa.Namespace) + " " + clientIDAnnotation + "=CLIENT-ID"
		a.say(command+" and start the pods again: "+sa.String()+" lacks that annotation, so its pods get no AZURE_CLIENT_ID",
			command+": "+sa.String()+" lacks that annotation", command)
		return
	}
	a.clientID(id, sa.String()+": annotation "+clientIDAnnotation)
}

// environment warns about variables of a container that are left alone and
// should not be there.
func (a *advice) environment(p *pod, c *container, sa *ServiceAccount) {
	name := "container " + strconv.Quote(clip(c.name))
	id := sa.Annotations[clientIDAnnotation]
	if v, ok := c.variable(clientName); ok && v.literal && id != "" && v.value != id {
		a.say("remove AZURE_CLIENT_ID from "+name+" or annotate "+sa.String()+" with the same: "+strconv.Quote(text.Clip(v.value, 40))+" counts, and the service account says "+strconv.Quote(text.Clip(id, 40)),
			"remove AZURE_CLIENT_ID from "+name+": it differs from the annotation of the service account, and counts")
	}
	if v, ok := c.variable(javaName); ok && !strings.Contains(v.value, trustPath) && a.rules.config.Trust != nil && !p.windows {
		a.say("append "+javaTrust+" to "+javaName+" of "+name+", or Java there does not trust Podkey",
			"append to "+javaName+" of "+name+": "+javaTrust, "append to "+javaName+": "+javaTrust)
	}
}
