"""``tls`` of a bind → ``Tls``: a certificate that cannot serve is a problem, one that soon will not is a warning."""

from __future__ import annotations

from shipworthy.manifest.deployment import Tls
from shipworthy.manifest.linking import Linking
from shipworthy.manifest.problem import KeyPath
from shipworthy.manifest.reference import PLACEHOLDER, Secret
from shipworthy.manifest.shape_process import TlsShape
from shipworthy.model.observation import CERTIFICATE_DAYS_LEFT


def link_tls(linking: Linking, path: KeyPath, shape: TlsShape | None) -> Tls | None:
    """TLS as the manifest wants it at ``path``; None = plain HTTP."""
    if shape is None:
        return None
    from shipworthy.manifest.certificates import Certificate

    tls = Tls(Certificate(shape.cert, shape.key), shape.client_ca)
    if not any(
        secret is not None and secret.reveal() == PLACEHOLDER for secret in (shape.cert, shape.key, shape.client_ca)
    ):
        _look(linking, path, tls)
    return tls


def _look(linking: Linking, path: KeyPath, tls: Tls) -> None:
    """Reports what is wrong with the files."""
    import ssl

    from shipworthy.manifest.certificates import CertificateUnusable, load_authorities

    try:
        looked = tls.certificate.look()
        if tls.client_ca is not None:
            load_authorities(tls.client_ca, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    except CertificateUnusable as unusable:
        said = {"cert": tls.certificate.chain, "key": tls.certificate.key, "client_ca": tls.client_ca}[unusable.which]
        here = (*path, unusable.which)
        linking.tree.report(here, unusable.what, said=_shown(said), wanted=unusable.wanted, hint=unusable.hint)
        return
    here, said = (*path, "cert"), tls.certificate.chain
    if not looked.names:
        what = "the certificate names no host or address (subjectAltName): no client will believe it"
        linking.tree.warn(here, what, said=_shown(said))
    days = (looked.ends.date() - linking.today).days
    if days <= CERTIFICATE_DAYS_LEFT:
        when = f"expired on {looked.ends.date()}" if days < 0 else f"ends on {looked.ends.date()}"
        hint = "replace the files: a certificate is put in force without a restart"
        linking.tree.warn(here, f"the certificate {when}", said=_shown(said), hint=hint)
    if looked.begins.date() > linking.today:
        linking.tree.warn(here, f"the certificate begins on {looked.begins.date()}", said=_shown(said))


def _shown(said: Secret | None) -> str:
    """Where it is said, as ``{file: PATH}``; never what it says."""
    key, _, name = said.reference.partition(" ") if said is not None else ("", "", "")
    return f"{{{key}: {name}}}"
