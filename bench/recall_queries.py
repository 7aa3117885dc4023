"""Questions for the quality bench of recall: paraphrases, written by hand, of what modules do.

Each line is the name of a module of the ansible wheel and a question that its description answers
in other words. The descriptions are real text; the questions are ours. Where a word cannot be
avoided (a product's name), other modules of the same product are the distractors.
"""

from __future__ import annotations

from typing import Final

_LINES: Final = """
archive|bundle a folder into one compressed file
decompress|expand a single squeezed file without a container format
alternatives|choose which of several programs of the same name runs by default
cronvar|define a value that scheduled jobs see in their environment
crypttab|list scrambled disks that are opened when the machine starts
filesystem|lay out a fresh disk so that files can be kept on it
htpasswd|user names and passwords for a web server's basic login
ini_file|change one option in a settings file with sections in brackets
interfaces_file|edit the old Debian list of network cards
java_keystore|a vault of keys for programs of the JVM
java_cert|trust an authority in the JVM's list
kernel_blacklist|stop a driver from being loaded
modprobe|load or unload a driver of the running system
locale_gen|make the machine speak another language
lvg|put several physical disks into one pool of storage
lvol|carve a logical disk out of a pool and grow it
mail|send a message to somebody's inbox
make|build a project from its recipe of targets
nmcli|configure network connections from the shell
nsupdate|change records of a name server on the fly
pam_limits|how many files or processes a user may have open
parted|cut a drive into sections
pids|which running programs have this name
read_csv|load a table of comma separated values
say|let the computer talk aloud
selinux_permissive|let one domain only warn instead of being denied
shutdown|power the machine off
snap|apps in Canonical's sandboxed format
ssh_config|per-user shortcuts for remote logins
sudoers|let somebody run commands as root
sysrc|settings that start FreeBSD services at boot
timezone|set the local clock's region
ufw|simple firewall of Ubuntu
wakeonlan|turn on a sleeping computer over the wire
xattr|extra metadata that users attach to files
xml|change a node in a markup document by its path
zfs|datasets of a copy-on-write file system from Sun
git_config|remember the author's name and other preferences for version control
github_issue|look up a bug report by its number
github_release|publish a new version with notes on the hosting site
github_webhook|call an address whenever somebody pushes to the repository
gitlab_merge_request|propose a change for review
gitlab_runner|machines that execute pipeline jobs
gitlab_protected_branch|forbid pushes to the main line of development
jenkins_job|define what the build server does
jenkins_plugin|extend the build server
jira|create and move tickets of the tracker by Atlassian
slack|post in a team's chat channel
telegram|notify a phone through a bot
mattermost|post to the self-hosted alternative of the team chat
twilio|text message to a mobile phone
mqtt|publish a reading to a broker for small devices
pagerduty|announce a planned outage to those on call
statusio_maintenance|tell visitors of the status page about planned work
nagios|silence monitoring alerts while we work
monit|watch a process and restart it when it dies
supervisorctl|start and stop programs that are babysat by a Python daemon
redis|flush or reconfigure the in-memory key value server
redis_data|set a single key with an expiry in the memory cache
etcd3|a key in the consistent store that Kubernetes uses
consul_kv|a value in HashiCorp's service discovery
influxdb_retention_policy|how long measurements over time are kept
influxdb_write|store measurement points
elasticsearch_plugin|extend the search server
kibana_plugin|extend the dashboards of the search server
mssql_script|run statements on Microsoft's database
odbc|query any database through a generic driver
haproxy|take a server out of the load balancer
apache2_module|switch on a feature of the web server
gunicorn|run a Python web application server
django_manage|administrative tasks of a Python web framework
npm|packages for JavaScript on the server
bower|packages for the browser
yarn|the other manager of JavaScript dependencies
composer|dependencies of PHP
gem|libraries of Ruby
bundler|libraries of Ruby as a project's file lists them
cargo|programs written in Rust from the registry
cpanm|modules of Perl
pear|extensions of PHP, the old way
pipx|install Python applications, each in its own isolation
homebrew|software on a Mac
homebrew_cask|graphical apps on a Mac
pacman|software on Arch
apk|software on the tiny distribution used in images
zypper|software on SUSE
portage|software on Gentoo
flatpak|desktop apps in sandboxes from a hub
maven_artifact|fetch a jar from a repository
terraform|apply infrastructure described as code
nomad_job|submit work to HashiCorp's scheduler
proxmox_kvm|full virtual machines on the hypervisor from Vienna
proxmox_snap|freeze the state of a guest to return to it
proxmox_backup|save guests of the hypervisor
lxd_container|system containers of Canonical
vmadm|zones and guests on SmartOS
ipmi_power|switch a server on remotely through its management chip
ipmi_boot|from which device a server starts next, through its management chip
redfish_command|standard API to steer the hardware of servers
iso_create|make an image of an optical disc
iso_extract|copy files out of an image of an optical disc
keycloak_user|people who can log in through the identity server
keycloak_realm|a separate space of identities
keycloak_client|an application that relies on the identity server
ldap_entry|add a node in the directory of people
ldap_passwd|change someone's secret in the directory
ldap_search|look people up in the directory
ipa_user|accounts in Red Hat's identity management
krb_ticket|get a ticket from the three-headed dog's service
keyring|keep a secret in the desktop's vault
onepassword_info|read secrets out of a commercial vault
systemd_creds_encrypt|scramble a secret for a unit of the init system
capabilities|give a program a single power of root
sefcontext|label files for mandatory access control
seport|label a port for mandatory access control
open_iscsi|attach a remote disk over the network
btrfs_subvolume|parts of the b-tree file system
xfs_quota|how much room a user may take on a volume
swupd|software on Intel's clear distribution
osx_defaults|preferences of Mac programs
dconf|preferences of the desktop by database path
gconftool2|preferences of the older desktop
launchd|background services on a Mac
runit|services under a minimal supervisor
cloudflare_dns|names at the content delivery company
gandi_livedns|names at the French registrar
ovh_ip_failover|move an address to another dedicated server
heroku_collaborator|share an app on the platform with a colleague
scaleway_compute|rent a server in the French cloud
linode_v4|rent a server at the penguin's hoster
sensu_check|define a probe of the monitoring framework
sensu_silence|mute alerts of the monitoring framework
icinga2_host|add a machine to be watched
datadog_monitor|alert when a metric in the SaaS crosses a threshold
newrelic_deployment|tell the performance service that we released
honeybadger_deployment|tell the error tracker that we released
rollbar_deployment|tell another error tracker about the rollout
discord|message to gamers' chat through a hook
rocketchat|message to the open source chat
matrix|message in a federated room
irc|message on the oldest chat network
jabber|instant message by XMPP
pushover|push a notice to a phone
office_365_connector_card|post a card to Microsoft's chat
ansible_galaxy_install|fetch shared roles and collections
puppet|run the agent of a competing tool
facter|gather facts as the competing tool does
ohai|gather facts as the chef does
deploy_helper|keep several releases of an app and link to the current one
at|run a command once, later
authorized_key|let a public key log in
firewalld|open a port on Red Hat's firewall
mount|attach a file system to a directory and remember it
patch|apply a diff to files
seboolean|toggle a switch of mandatory access control
synchronize|copy trees efficiently with rsync
sysctl|tune the running kernel's parameters
acl|finer permissions on a file than owner and group
docker_compose_v2|bring up services that one YAML file describes
docker_container|start an isolated process from an image
docker_container_exec|run a command inside something that is already running
docker_container_copy_into|put a file inside something that is already running
docker_image_build|make an image from a recipe
docker_image_push|upload an image to a registry
docker_image_export|save images into a tarball
docker_login|authenticate at a registry of images
docker_network|connect isolated processes with each other
docker_prune|throw away unused images and leftovers
docker_secret|confidential value for services of a cluster
docker_swarm|make several hosts one cluster
docker_volume|persistent data of isolated processes
docker_node|drain or promote a member of the cluster
postgresql_db|create a database, or dump and restore it
postgresql_user|a login role in the elephant's database
postgresql_privs|grant rights on tables in the elephant's database
postgresql_ext|add optional features such as postgis
postgresql_idx|speed up lookups on a column
postgresql_ping|is the elephant's server alive
postgresql_pg_hba|who may connect from where
postgresql_copy|move data between a file and a table
postgresql_slot|keep write-ahead log for a standby
postgresql_publication|send changes of tables to subscribers
postgresql_tablespace|place data on another disk
postgresql_owner|hand objects over to another role
postgresql_sequence|generator of ascending numbers
postgresql_schema|a namespace within a database
mysql_db|create a database in the dolphin's server
mysql_replication|make one dolphin server follow another
mysql_variables|read or set global options of the dolphin's server
mysql_user|a login for the dolphin's server
acme_certificate|get a free TLS certificate by proving control of a domain
acme_certificate_revoke|declare a free TLS certificate invalid
get_certificate|see which certificate a server presents
luks_device|full disk encryption on Linux
openssh_keypair|generate a pair of keys for remote login
openssl_csr|ask an authority to sign
openssl_privatekey|generate a secret key for TLS
openssl_dhparam|big primes for key exchange
openssl_pkcs12|bundle key and chain in one protected file
openssl_signature|sign a file
x509_crl|list of certificates that are no longer valid
certificate_complete_chain|find the missing intermediates
win_audit_rule|log who touches a file on Microsoft's system
win_auto_logon|skip the password prompt when Windows starts
win_defrag|tidy fragmented volumes
win_dns_record|an entry in Microsoft's name server
win_domain_user|accounts in Active Directory
win_eventlog_entry|write a line to the log viewer of Windows
win_firewall_rule|allow a program through Windows' packet filter
win_hosts|local overrides of names on Windows
win_iis_website|sites on Microsoft's web server
win_mapped_drive|give a network share a letter
win_msg|pop up a text for those who are logged in
win_nssm|run any program as a Windows service
win_pagefile|virtual memory on disk for Windows
win_partition|divide a disk on Windows
win_power_plan|save energy or run at full speed
win_robocopy|mirror folders on Windows
win_scheduled_task|run a job regularly on Windows
win_shortcut|a link on the desktop
win_timezone|set the clock's region on Windows
win_toast|a small notification in the corner of the screen
win_unzip|extract an archive on Windows
win_wait_for_process|pause until a program has ended on Windows
"""

QUESTIONS: Final = tuple(
    (name, question)
    for name, _, question in (line.partition("|") for line in _LINES.strip().splitlines())
)
"""(module, question)."""
