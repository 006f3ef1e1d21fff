"""Keywords of sshd_config(5) up to OpenSSH 10, those that it still takes and ignores, and those of distributions."""

from __future__ import annotations

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
