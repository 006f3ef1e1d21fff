"""What makes a card boot half configured, and what keeps ours from it: the list to look into first, for each image.

Each trap is a fact about somebody's image or program. `held` names the tests that would be red if the code no longer
minded it, and the rules of `piimage verify` that name it in an image by somebody else. test_bases_traps.py sees to it
that all of them are there, and that none of its own tests is missing here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Trap:
    """`where` is whose image or program it is of, `what` goes wrong, `held` by what it does not."""

    where: str
    what: str
    held: tuple[str, ...]


def _traps(where: str, listed: dict[str, str]) -> list[Trap]:
    return [Trap(where, what, tuple(held.split())) for what, held in listed.items()]


TRAPS = [
    *_traps(
        "libguestfs and the appliance",
        {
            "KVM is there and crashes QEMU, or leaves it standing":
                "test_without_a_working_kvm_it_is_emulated test_a_launch_that_stands_still_has_a_limit",
            "the module is the distribution's python3's alone":
                "test_without_the_python_module",
            "`PARTUUID=` in fstab is resolved by nobody, and a file is written below the mount point":
                "test_every_way_to_name_a_partition test_a_file_below_the_fats_mount_point_belongs_to_the_fat"
                " test_the_firmware_partition test_nothing_was_written_below_a_mount_point PI104 PI203",
            "a root without fstab or /etc/hosts is not seen as one":
                "test_mounts_are_found_in_fstab_or_where_there_is_none_in_units",
            "64-bit Raspberry Pi OS says that it is Debian":
                "test_sixty_four_bit_raspberry_pi_os_is_not_debian test_what_looks_alike_is_told_apart",
            "a package manager is guessed from the distribution":
                "test_names_versions_and_architectures test_installed_packages_and_their_architectures",
            "the kernel's architecture is taken for that of the programs":
                "test_architecture_from_the_elf_header test_programs_and_packages_must_agree",
            "xfs is in no appliance by default, and a volume group's name may be the host's own":
                "test_a_damaged_volume_group_is_told",
            "a machine id is written, or emptied, where the first boot wants none":
                "test_the_machine_id_stays_as_the_vendor_left_it test_no_machine_id_is_baked_and_none_is_emptied PI205",
            "a name is written, and the old one stays in /etc/hosts":
                "test_hosts_name_all_nodes_by_their_wired_address PI221",
            "keys are given to a user that is not there yet":
                "test_an_image_without_users_gets_ours_and_no_ubuntu",
            "programs of another architecture do not run":
                "test_what_a_stock_image_lacks_is_asked_of_its_archive",
        },
    ),
    *_traps(
        "cloud-init",
        {
            "`instance_id`, as vendors write it, is ignored":
                "test_the_instance_id_has_the_key_that_cloud_init_knows PI208",
            "`ds=nocloud;i=` on the command line goes before the seed, on every node":
                "test_what_overrides_the_seed_of_every_node_is_taken_out PI209 PI303",
            "with the instance id of the last boot nothing runs again":
                "test_instance_id_changes_with_content_and_only_with_it",
            "a part of the seed is missing, or does not begin as it must":
                "test_every_slot_is_filled_over_every_base test_user_data_opens_with_the_magic_line PI208",
            "`seedfrom` and `fs_label` of vendors lead to the FAT":
                "test_our_cloud_init_settings_have_the_last_word_over_the_vendors"
                " test_an_image_without_users_gets_ours_and_no_ubuntu PI209",
            "it is switched off, or masked, or no unit of it is enabled":
                "test_what_overrides_the_seed_of_every_node_is_taken_out"
                " test_cloud_init_that_somebody_has_masked_is_refused"
                " test_cloud_init_is_started_where_presets_have_left_it_off PI209",
            "`manage_etc_hosts` takes the cluster out of /etc/hosts": "test_names_go_to_cloud_init PI210",
            "the host name of the image comes back at each boot": "test_names_go_to_cloud_init",
            "apt's sources are written anew from a template": "test_apt_keeps_the_sources_of_the_image",
            "netplan's file, with the Wi-Fi key, is written for all to read (Ubuntu 22.04)":
                "test_what_an_old_cloud_init_writes_for_all_to_read_lies_where_only_root_gets",
            "a version before 22.3 takes a newer hash for the password itself":
                "test_a_hash_that_an_old_cloud_init_would_take_for_the_password_is_refused"
                " test_an_old_cloud_init_gets_the_hashes_in_a_list test_a_newer_one_is_told_that_it_is_a_hash",
        },
    ),
    *_traps(
        "hardware names",
        {
            "a list of vendors' MAC addresses is never complete": "test_netplan_accepts_every_network_config",
            "the wire is eth0 here and end0 there":
                "test_the_wire_is_found_under_the_name_that_fedora_gives_it"
                " test_the_wire_has_an_address_and_no_way_out",
            "up to the Pi 3 the wire is on USB and called after its address": "test_a_port_on_usb_is_the_wire_too",
            "without a country Wi-Fi stays off, and who reads it differs: the driver always does":
                "test_the_command_line_stays_one_line_and_keeps_what_the_first_boot_reads PI213",
        },
    ),
    *_traps(
        "Raspberry Pi OS, all releases",
        {
            "the wizard waits on the console, and a desktop for its user":
                "test_the_wizard_asks_nobody_and_the_console_is_free test_rename_takes_the_wizard_out PI214",
            "`pi` keeps its sudo rule, its name and its password":
                "test_the_base_user_becomes_ours_with_a_shell_and_without_a_trace"
                " test_privileges_without_a_password_end_with_the_user_who_had_them"
                " test_a_password_that_everybody_knows_opens_nothing PI220",
            "ssh is off": "test_ssh_is_on_where_the_vendor_had_it_off PI215",
            "host keys are made at the first boot, or removed by it":
                "test_the_unit_that_makes_host_keys_is_masked"
                " test_the_first_boots_script_does_not_remove_the_nodes_host_keys PI207",
            "host keys in the image are those of all nodes":
                "test_sshd_offers_one_certified_key_and_what_was_asked PI304",
            "Wi-Fi is blocked until a country is set, and no file for the radio is there yet":
                "test_the_radios_are_switched_on test_the_radios_of_all_boards_are_on PI213",
            "the first boot renews the disk's id, and what else names it is stale":
                "test_the_disk_signature_is_left_to_the_first_boot_where_partuuids_name_it"
                " test_no_entry_names_the_disk_by_what_the_first_boot_renews"
                " test_what_would_lose_its_partition_at_the_first_boot_is_told PI203",
            "what Raspberry Pi Imager has left on the FAT runs before us, and on trixie to no end":
                "test_the_script_of_an_older_imager_is_not_run_in_place_of_a_boot"
                " test_another_command_for_one_boot_is_left_to_whoever_wrote_it"
                " test_what_overrides_the_seed_of_every_node_is_taken_out PI214",
            "systemd-timesyncd keeps the time too": "test_only_one_keeps_the_time",
            "packages of derivatives are called otherwise":
                "test_a_relative_is_known_by_what_it_is_like_and_may_have_package_names_of_its_own"
                " test_a_relative_gets_a_whole_plan",
        },
    ),
    *_traps(
        "Raspbian buster and bullseye",
        {
            "buster's ssh server reads no drop-ins": "test_an_ssh_that_reads_no_drop_ins_has_it_all_in_its_own_files",
            "buster's chrony reads no drop-ins": "test_a_chrony_without_drop_ins_has_it_all_in_its_own_file",
            "a yescrypt hash (`$y$`) opens no account":
                "test_a_hash_that_an_old_cloud_init_would_take_for_the_password_is_refused",
            "`init=` is taken off the command line, and with it growth, keys and another disk id":
                "test_the_command_line_stays_one_line_and_keeps_what_the_first_boot_reads"
                " test_first_boots_that_renew_a_disk_id_are_known PI305",
            "the root grows only where it is the last partition":
                "test_a_partition_behind_the_root_is_told test_the_table_and_the_gap_are_untouched PI206",
            "dhcpcd is in force, and NetworkManager on board":
                "test_networkmanager_on_board_and_not_in_force_configures_nothing"
                " test_installed_and_not_enabled_decides_nothing",
            "dhcpcd waits for a network at boot":
                "test_networkmanager_on_board_and_not_in_force_configures_nothing",
            "a wpa_supplicant.conf on the FAT is moved over ours":
                "test_a_wifi_that_lies_on_the_fat_does_not_take_the_place_of_ours",
            "rpcbind and nfs-common are disabled, and NFS 3 wants them": "test_only_version_4_so_no_port_mapper",
            "bullseye's NFS server reads no nfs.conf": "test_a_server_that_reads_no_nfs_conf_is_told_by_its_variables",
            "the archive has moved and answers 404": "test_an_old_release_that_has_moved",
        },
    ),
    *_traps(
        "Raspberry Pi OS bookworm",
        {
            "/boot/cmdline.txt and config.txt are decoys":
                "test_decoys_on_the_root_are_not_what_is_edited test_decoys_are_as_they_were",
            "an initramfs made elsewhere with `MODULES=dep` has that machine's modules":
                "test_an_initramfs_is_for_any_board_and_the_setting_is_as_it_was",
            "NetworkManager ignores a profile that others may read": "test_wifi_keys_lie_in_files_of_root_alone PI212",
            "`WirelessEnabled=false`": "test_the_radios_are_switched_on PI213",
            "no cloud-init": "test_what_a_stock_image_lacks_is_asked_of_its_archive",
            "fstab has no line for the firmware's partition, and the first boot ends there":
                "test_a_firmware_partition_that_nothing_mounts_quotes_fstab PI203",
        },
    ),
    *_traps(
        "Raspberry Pi OS trixie",
        {
            "the root grows by three things together: `resize`, a unit, `uninitialized`":
                "test_what_grows_the_root_at_first_boot_stays_enabled"
                " test_the_command_line_stays_one_line_and_keeps_what_the_first_boot_reads"
                " test_the_machine_id_stays_as_the_vendor_left_it PI206",
            "presets of a first boot enable what is not named": "test_preset_freezes_the_state_of_every_unit",
            "`users:` without `default` makes accounts without groups":
                "test_the_base_user_becomes_ours_with_a_shell_and_without_a_trace PI211",
            "since 2026-04 `pi` has no shell and no sudo":
                "test_the_base_user_becomes_ours_with_a_shell_and_without_a_trace PI226",
            "no nfs-common":
                "test_what_a_stock_image_lacks_is_asked_of_its_archive test_a_share_without_its_helper_is_told PI223",
            "timesyncd's clock is a directory in the first image": "test_only_one_keeps_the_time",
            "netplan is there, and a seed's network-config is not always applied":
                "test_cloud_init_leaves_the_network_alone_where_it_is_not_netplans",
        },
    ),
    *_traps(
        "Ubuntu",
        {
            "since 25.10 nobody reads the command line in the FAT's root":
                "test_a_command_line_that_nobody_reads_is_left_alone test_the_command_line_in_force",
            "`new/` and `old/` are the system's": "test_the_staged_boot_files_are_left_to_the_system",
            "with another label the FAT is neither mounted nor a seed": "test_a_broken_card_is_named PI203",
            "no user, and a seed that makes one with a known password":
                "test_an_image_without_users_gets_ours_and_no_ubuntu",
            "`optional: true` lets a boot go on before the network that it needs":
                "test_no_first_boot_wants_packages_or_a_network",
            "users get `lxd`, and GPIO is dialout's":
                "test_gpio_is_dialouts_on_ubuntu test_gpio_belongs_to_dialout_on_ubuntu_alone",
            "chrony's own servers want NTS, and that a clock which is right":
                "test_the_vendors_own_time_servers_go test_clock_seed_is_the_bases_own_time",
            "`regulatory-domain` needs iw, which is not there":
                "test_the_command_line_stays_one_line_and_keeps_what_the_first_boot_reads"
                " test_an_old_netplan_is_not_told_the_country_which_it_would_refuse",
            "unattended-upgrades and apt's timers lock dpkg, and nodes drift apart":
                "test_no_node_upgrades_itself_and_so_locks_dpkg_at_its_first_boot"
                " test_who_asks_for_upgrades_at_night_has_them",
            "ssh is a socket's, whose port is set elsewhere": "test_ssh_is_a_service_where_the_vendor_had_a_socket",
            "the machine id is empty in one release and `uninitialized` in the next":
                "test_the_machine_id_stays_as_the_vendor_left_it",
            "a cluster of two releases has two MPIs": "test_vendors_mix_in_a_cluster_when_their_releases_have_one_mpi",
        },
    ),
    *_traps(
        "Fedora",
        {
            "initial-setup holds the consoles up, and nobody has an account":
                "test_initial_setup_asks_nobody test_a_reconfiguration_that_is_asked_for_is_taken_back"
                " test_users_are_made_with_their_numbers_though_the_image_has_none PI214",
            "a file without its SELinux label is denied":
                "test_everything_that_is_written_has_the_label_that_the_policy_has_for_it"
                " test_slots_are_labelled_in_the_image_since_a_stamp_knows_no_labels PI105",
            "nothing grows the root": "test_what_grows_the_root_is_asked_of_fedoras_archive",
            "since 43 there is no fstab, and one that is made mounts things twice":
                "test_no_fstab_is_made_beside_mount_units test_nothing_is_mounted_where_a_unit_is_not_enabled",
            "the command line is in entries, and the next kernel's elsewhere":
                "test_kernel_tokens_are_in_every_entry_and_in_what_the_next_kernel_gets"
                " test_no_cmdline_txt_is_made_that_nobody_would_read PI202",
            "Server is LVM and xfs": "test_a_damaged_volume_group_is_told",
            "all cards of one image have one disk id":
                "test_cards_get_signatures_of_their_own_though_the_image_has_one_for_all PI305",
            "firewalld lets in ssh alone, and MPI takes any port":
                "test_a_firewall_lets_the_wire_through_and_nothing_else",
            "presets leave services off": "test_presets_of_a_first_boot_leave_units_as_they_were_built",
            "dnf's timers hold its lock": "test_no_node_fetches_or_installs_by_itself",
        },
    ),
    *_traps(
        "Fedora IoT, Cloud and desktops",
        {
            "the physical root has no /etc, and /usr is not to be changed":
                "test_a_system_of_deployments_is_refused_with_the_way_to_go",
            "GPT, btrfs subvolumes and no firmware": "test_it_is_refused_and_nothing_stays",
        },
    ),
    *_traps(
        "Debian's own for the Raspberry Pi",
        {
            "raspi-firmware writes the command line and config.txt anew, once at the first boot":
                "test_the_first_boot_does_not_write_the_command_line_anew"
                " test_the_next_kernel_finds_all_that_is_on_the_command_line_and_in_config_txt"
                " test_a_bake_tells_the_firmwares_hook_what_it_would_look_for_on_the_board PI202",
            "an initramfs that is made anew does not grow the root":
                "test_the_root_grows_though_its_initramfs_is_made_anew PI206",
            "sysconf.txt on the FAT sets name, keys and root's password at each boot":
                "test_settings_on_the_fat_do_not_win_over_name_and_keys PI214",
            "no sudo, no cloud-init": "test_sudo_comes_from_the_archive_where_somebody_may_use_it",
            "the host name has an underscore": "test_the_host_name_with_an_underscore_goes",
            "root's password is empty": "test_root_without_a_password_is_locked PI220",
            "ifupdown and cloud-init both have the wire": "test_the_wire_is_told_once PI212",
            "a bake's own machine has no serial port and is no Pi 4, and the command line is written for that":
                "test_a_bake_tells_the_firmwares_hook_what_it_would_look_for_on_the_board"
                " test_the_hook_has_its_settings_again_after_the_bake",
            "targets require units of the first boot, which make host keys, and fail where the FAT does":
                "test_the_first_boot_makes_no_host_keys_that_nobody_knows"
                " test_settings_on_the_fat_do_not_win_over_name_and_keys PI214",
            "there is no resolv.conf": "test_a_missing_resolv_conf_is_made_where_the_wire_has_a_way_out"
                " test_the_program_that_asks_for_an_address_and_writes_resolv_conf_is_there",
            "`auto` waits for a port, and fails for one that the board has not":
                "test_no_port_is_waited_for_and_the_wire_has_no_way_out",
        },
    ),
    *_traps(
        "any image",
        {
            "of cmdline.txt the first line counts":
                "test_the_command_line_stays_one_line_and_keeps_what_the_first_boot_reads"
                " test_merging_is_one_line_idempotent_and_complete PI201",
            "two cards in one host have one PARTUUID":
                "test_cards_of_one_image_get_signatures_of_their_own test_disk_ids_differ_and_stay PI305",
            "a FAT has no modes: what is secret there is everybody's":
                "test_no_secret_is_on_the_fat test_no_secret_and_no_name_of_a_node_is_in_a_variant PI219",
            "a key in a profile or in netplan's file is for root alone":
                "test_wifi_keys_lie_in_files_of_root_alone"
                " test_a_profile_that_is_ignored_or_tells_its_key_is_told PI212",
            "apt asks whether a suite may have another name": "test_lists_of_another_time_are_left_in_the_image",
            "what is shown of a plan is not what a build makes": "test_a_plan_for_people_can_be_made_over_every_base",
        },
    ),
    *_traps(
        "a card that was in use",
        {
            "keys of its people let them in":
                "test_keys_of_people_whom_the_cluster_does_not_know_are_taken_out"
                " test_keys_that_the_base_accepts_from_elsewhere_do_not_count",
            "all nodes have the host keys that it made":
                "test_host_keys_of_other_types_are_not_shared_by_all_nodes",
            "nodes join its networks":
                "test_profiles_of_other_networks_are_taken_out test_networkd_gets_no_other_netplan_file_of_our_ports"
                " test_wpa_supplicant_knows_no_other_network",
            "units and cron jobs run as a user who is no more":
                "test_units_and_cron_jobs_of_the_bases_user_run_as_the_one_who_takes_over"
                " test_a_group_that_is_not_the_users_own_keeps_its_name",
            "lists of access name numbers that are others' now":
                "test_numbers_in_access_control_lists_change_too",
            "config.txt includes another file, and names another command line":
                "test_what_config_txt_includes_counts_and_the_command_line_may_have_any_name"
                " test_the_same_command_line_is_rehearsed test_a_command_line_of_some_boards_alone_is_refused",
            "the root cannot grow, and nobody says so before the work":
                "test_a_root_with_something_behind_it_is_told_of_before_any_work PI206",
        },
    ),
]  # fmt: skip
