"""Keywords of sshd_config(5) up to OpenSSH 10, those that it still takes and ignores, and those of distributions.

With the values of those that take one of a few: sshd does not start with another one either.
"""

from __future__ import annotations

import re

SSHD_WORDS = frozenset(
    """
    acceptenv addressfamily allowagentforwarding allowgroups allowstreamlocalforwarding allowtcpforwarding allowusers
    authenticationmethods authorizedkeyscommand authorizedkeyscommanduser authorizedkeysfile
    authorizedprincipalscommand authorizedprincipalscommanduser authorizedprincipalsfile banner
    casignaturealgorithms challengeresponseauthentication channeltimeout chrootdirectory ciphers
    clientalivecountmax clientaliveinterval compression denygroups denyusers disableforwarding
    exposeauthinfo fingerprinthash forcecommand gatewayports gssapiauthentication gssapicleanupcredentials
    gssapistrictacceptorcheck hostbasedacceptedalgorithms hostbasedacceptedkeytypes hostbasedauthentication
    hostbasedusesnamefrompacketonly hostcertificate hostkey hostkeyagent hostkeyalgorithms ignorerhosts
    ignoreuserknownhosts include ipqos kbdinteractiveauthentication kerberosauthentication kerberosgetafstoken
    kerberosorlocalpasswd kerberosticketcleanup kexalgorithms listenaddress logingracetime loglevel logverbose
    macs match maxauthtries maxsessions maxstartups modulifile passwordauthentication permitemptypasswords
    permitlisten permitopen permitrootlogin permittty permittunnel permituserenvironment permituserrc
    persourcemaxstartups persourcenetblocksize persourcepenalties persourcepenaltyexemptlist pidfile port
    printlastlog printmotd pubkeyacceptedalgorithms pubkeyacceptedkeytypes pubkeyauthentication pubkeyauthoptions
    rdomain refuseconnection rekeylimit requiredrsasize revokedkeys securitykeyprovider setenv sshdauthpath
    sshdsessionpath streamlocalbindmask streamlocalbindunlink strictmodes subsystem syslogfacility tcpkeepalive
    trustedusercakeys unusedconnectiontimeout usedns usepam versionaddendum x11displayoffset x11forwarding
    x11uselocalhost xauthlocation
    keyregenerationinterval protocol rhostsrsaauthentication rsaauthentication serverkeybits uselogin
    useprivilegeseparation
    debianbanner gssapikeyexchange gssapistorecredentialsonrekey gssapikexalgorithms kerberosuniqueccache
    gssapienablek5users permitpamuserchange rsaminsize showpatchlevel
    """.split()
)
_NUMBER = re.compile(r"[0-9]+")
_LEVELS = "quiet fatal error info verbose debug debug1 debug2 debug3"
_FEW = {
    "yes no": """
        allowagentforwarding challengeresponseauthentication debianbanner disableforwarding exposeauthinfo
        gssapiauthentication gssapicleanupcredentials gssapikeyexchange gssapistrictacceptorcheck
        hostbasedauthentication hostbasedusesnamefrompacketonly ignoreuserknownhosts kbdinteractiveauthentication
        kerberosauthentication kerberosgetafstoken kerberosorlocalpasswd kerberosticketcleanup
        passwordauthentication permitemptypasswords permittty permituserrc printlastlog printmotd
        pubkeyauthentication streamlocalbindunlink strictmodes tcpkeepalive usedns usepam x11forwarding x11uselocalhost
    """,
    "yes no prohibit-password without-password forced-commands-only": "permitrootlogin",
    "yes no all local remote": "allowtcpforwarding allowstreamlocalforwarding",
    "yes no clientspecified": "gatewayports",
    "yes no delayed": "compression",
    "yes no shosts-only": "ignorerhosts",
    "yes no point-to-point ethernet": "permittunnel",
    "any inet inet6": "addressfamily",
    "md5 sha256": "fingerprinthash",
    _LEVELS: "loglevel",
}
_VALUES = {
    word: frozenset(values.split()) for values, words in _FEW.items() for word in words.split()
}
_NUMBERS = frozenset("port maxauthtries maxsessions clientalivecountmax x11displayoffset".split())


def wrong_value(word: str, value: str) -> str | None:
    """What `word` takes instead, if sshd does not take `value` for it; a comment may stand behind."""
    plain = value.partition(" #")[0].strip().strip('"').lower()
    allowed = _VALUES.get(word.lower())
    if allowed is not None and plain not in allowed:
        return ", ".join(sorted(allowed))
    if word.lower() in _NUMBERS and not _NUMBER.fullmatch(plain):
        return "a number"
    return None
