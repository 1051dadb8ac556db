package keyvault

import (
	"net/http"
	"sync"

	"github.com/podkey/podkey/internal/text"
	"github.com/podkey/podkey/internal/web"
)

// buffers holds encoding buffers between answers. They hold secret values
// while they wait for reuse, as the rest of the heap does.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// answer encodes a body and sends it with status 200.
func (rq *request) answer(encode func(*encoder)) error {
	buf := buffers.Get().(*[]byte)
	e := encoder{b: (*buf)[:0], origin: rq.call.Names.VaultURL(rq.call.Vault), vault: &rq.vault}
	encode(&e)
	err := web.WriteJSONBytes(rq.w, http.StatusOK, e.b)
	if cap(e.b) <= 64<<10 {
		*buf = e.b
		buffers.Put(buf)
	}
	return err
}

// answerBundle sends a secret. The preceding version is shown to clients of
// the versions that know the member.
func (rq *request) answerBundle(s *secret, withValue bool) error {
	return rq.answer(func(e *encoder) { e.bundle(s, withValue, apiVersions[rq.api]) })
}

func (h *Handler) setSecret(rq *request) error {
	var body secretBody
	if err := rq.decodeBody(&body); err != nil {
		return err
	}
	c, err := body.change()
	if err != nil {
		return err
	}
	if c.Value == nil {
		return badParameter("The property 'value' is required.")
	}
	s, err := h.Vaults.setSecret(rq.r.Context(), &rq.vault, rq.name, c)
	if err != nil {
		return err
	}
	return rq.answerBundle(&s, true)
}

func (h *Handler) getSecret(rq *request) error {
	out := rq.query.Get("outContentType")
	if out != "" && out != typePEM && out != typePFX {
		return badParameter("The outContentType '%.60s' is not supported.", out)
	}
	s, err := h.Vaults.getSecret(rq.r.Context(), &rq.vault, rq.name, rq.version)
	if err != nil {
		return err
	}
	if s.Disabled {
		return secretDisabled("get")
	}
	if out != "" && out != s.ContentType {
		if s.ContentType != typePFX || out != typePEM {
			return badParameter("The content of the secret cannot be converted to '%s': only a secret of type '%s' can be converted, to '%s'.", out, typePFX, typePEM)
		}
		if s.Value, err = pfxToPEM(s.Value); err != nil {
			return err
		}
		s.ContentType = typePEM
	}
	return rq.answerBundle(&s, true)
}

func (h *Handler) updateSecret(rq *request) error {
	var body secretBody
	if err := rq.decodeBody(&body); err != nil {
		return err
	}
	c, err := body.change()
	if err != nil {
		return err
	}
	s, err := h.Vaults.updateSecret(rq.r.Context(), &rq.vault, rq.name, rq.version, c)
	if err != nil {
		return err
	}
	return rq.answerBundle(&s, false)
}

func (h *Handler) deleteSecret(rq *request) error {
	d, err := h.Vaults.deleteSecret(rq.r.Context(), &rq.vault, rq.name)
	if err != nil {
		return err
	}
	return rq.answer(func(e *encoder) { e.deleted(&d, false) })
}

func (h *Handler) getDeleted(rq *request) error {
	d, err := h.Vaults.deletedSecretByName(rq.r.Context(), &rq.vault, rq.name)
	if err != nil {
		return err
	}
	return rq.answer(func(e *encoder) { e.deleted(&d, false) })
}

func (h *Handler) recoverSecret(rq *request) error {
	s, err := h.Vaults.recoverSecret(rq.r.Context(), &rq.vault, rq.name)
	if err != nil {
		return err
	}
	return rq.answerBundle(&s, false)
}

func (h *Handler) purgeSecret(rq *request) error {
	if err := h.Vaults.purgeSecret(rq.r.Context(), &rq.vault, rq.name); err != nil {
		return err
	}
	rq.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *Handler) backupSecret(rq *request) error {
	blob, err := h.Vaults.backupSecret(rq.r.Context(), &rq.vault, rq.name)
	if err != nil {
		return err
	}
	return rq.answer(func(e *encoder) {
		e.b = append(e.b, `{"value":`...)
		e.b = text.AppendJSON(e.b, blob)
		e.b = append(e.b, '}')
	})
}

func (h *Handler) restoreSecret(rq *request) error {
	var body struct {
		Value string `json:"value"`
	}
	if err := rq.decodeBody(&body); err != nil {
		return err
	}
	if body.Value == "" {
		return badParameter("The property 'value' is required.")
	}
	s, err := h.Vaults.restoreSecret(rq.r.Context(), &rq.vault, body.Value)
	if err != nil {
		return err
	}
	return rq.answerBundle(&s, false)
}
