//! The tables, as both migrations make them.

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    projects (id) { id -> UuidSql, name -> Text, description -> Text, created_at -> BigInt, version -> BigInt, }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    networks (id) {
        id -> UuidSql,
        name -> Text,
        plan -> Text,
        first_address -> BigInt,
        last_address -> BigInt,
        dhcp -> Text,
        segment -> Text,
        generation -> BigInt,
        created_at -> BigInt,
        version -> BigInt,
        relays -> Text,
        access -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    agents (network_id) {
        network_id -> UuidSql,
        agent_version -> Text,
        generation_observed -> BigInt,
        netboot_state -> Text,
        netboot_reason -> Nullable<Text>,
        last_seen -> BigInt,
        dropped -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    authorities (id) {
        id -> UuidSql,
        certificate -> Text,
        key_sealed -> Text,
        spki_sha256 -> Text,
        created_at -> BigInt,
        expires_at -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    enrolled_agents (id) {
        id -> UuidSql,
        network_id -> UuidSql,
        state -> Text,
        key_sha256 -> Text,
        previous_key_sha256 -> Nullable<Text>,
        previous_until -> Nullable<BigInt>,
        pending_key_sha256 -> Nullable<Text>,
        authority_id -> UuidSql,
        certificate_until -> BigInt,
        agent_version -> Text,
        clock_ahead_ms -> Nullable<BigInt>,
        enrolled_at -> BigInt,
        last_seen -> BigInt,
        version -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    join_tokens (id) {
        id -> UuidSql,
        network_id -> UuidSql,
        sha256 -> Text,
        created_by -> Text,
        created_at -> BigInt,
        expires_at -> BigInt,
        agent_id -> Nullable<UuidSql>,
        used_key_sha256 -> Nullable<Text>,
        used_at -> Nullable<BigInt>,
        certificate -> Nullable<Text>,
        answer_until -> Nullable<BigInt>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    nodes (id) {
        id -> UuidSql,
        name -> Text,
        architecture -> Text,
        power -> Text,
        state -> Text,
        project_id -> Nullable<UuidSql>,
        created_at -> BigInt,
        version -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    nics (mac) { mac -> Text, node_id -> UuidSql, position -> BigInt, }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    images (id) {
        id -> UuidSql,
        project_id -> UuidSql,
        name -> Text,
        state -> Text,
        virtual_size -> BigInt,
        sha256 -> Nullable<Text>,
        upload_offset -> BigInt,
        import_file -> Nullable<Text>,
        created_at -> BigInt,
        version -> BigInt,
        format -> Text,
        file_size -> BigInt,
        visibility -> Text,
        used_bytes -> BigInt,
        upload_holder -> Nullable<Text>,
        upload_until -> BigInt,
        import_stored -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    instances (id) {
        id -> UuidSql,
        project_id -> UuidSql,
        name -> Text,
        node_id -> UuidSql,
        image_id -> UuidSql,
        network_id -> UuidSql,
        state -> Text,
        node_address -> BigInt,
        target_address -> BigInt,
        boot_volume -> UuidSql,
        config_volume -> UuidSql,
        boot_key_sealed -> Text,
        user_data_sealed -> Text,
        published_generation -> Nullable<BigInt>,
        withdrawn_generation -> Nullable<BigInt>,
        target_state -> Text,
        target_reason -> Nullable<Text>,
        read_bytes -> BigInt,
        written_bytes -> BigInt,
        created_at -> BigInt,
        version -> BigInt,
        address_giver -> Text,
        address_seen -> Nullable<BigInt>,
        boot_condition -> Nullable<Text>,
        used_bytes -> BigInt,
        boot_floor -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    operations (id) {
        id -> UuidSql,
        kind -> Text,
        state -> Text,
        project_id -> UuidSql,
        subject_kind -> Text,
        subject_id -> UuidSql,
        subject_name -> Text,
        error -> Nullable<Text>,
        progress_done -> Nullable<BigInt>,
        progress_total -> Nullable<BigInt>,
        requested_by -> Text,
        lease_owner -> Nullable<Text>,
        lease_until -> BigInt,
        epoch -> BigInt,
        due_at -> Nullable<BigInt>,
        created_at -> BigInt,
        updated_at -> BigInt,
        code -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    journal (operation_id, position) {
        operation_id -> UuidSql,
        position -> BigInt,
        at -> BigInt,
        entry -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    stages (id) { id -> UuidSql, instance_id -> UuidSql, at -> BigInt, stage -> Text, detail -> Text, }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    network_events (id) { id -> UuidSql, network_id -> UuidSql, at -> BigInt, event -> Text, detail -> Text, }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    sessions (instance_id) { instance_id -> UuidSql, began_at -> BigInt, statistics -> Text, }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    ceph_keys (volume_id) {
        volume_id -> UuidSql,
        user_name -> Text,
        key_sealed -> Text,
        caps -> Text,
        image -> Text,
        header -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    ceph_fences (address) { address -> Text, volume_id -> UuidSql, fenced_at -> BigInt, }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    ceph_owner (position) { position -> BigInt, id -> UuidSql, }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    bridge_ports (node_id, interface) {
        node_id -> UuidSql,
        interface -> Text,
        network_id -> UuidSql,
        wanted -> BigInt,
        generation -> BigInt,
        state -> Nullable<Text>,
        reason -> Nullable<Text>,
        reported_generation -> Nullable<BigInt>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    idempotency (id) {
        id -> UuidSql,
        caller -> Text,
        method -> Text,
        path -> Text,
        key -> Text,
        body_sha256 -> Text,
        answer -> Nullable<Text>,
        created_at -> BigInt,
        running_until -> BigInt,
        decisions -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    roles (name) {
        name -> Text,
        description -> Text,
        permissions -> Text,
        created_at -> BigInt,
        version -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    bindings (id) {
        id -> UuidSql,
        subject -> Text,
        role -> Text,
        project_id -> Nullable<UuidSql>,
        created_at -> BigInt,
        created_by -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    policy_version (id) {
        id -> BigInt,
        version -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    service_accounts (id) {
        id -> UuidSql,
        project_id -> UuidSql,
        name -> Text,
        description -> Text,
        scopes -> Text,
        created_at -> BigInt,
        created_by -> Text,
        version -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    service_tokens (id) {
        id -> UuidSql,
        account_id -> UuidSql,
        sha256 -> Text,
        created_at -> BigInt,
        expires_at -> BigInt,
        last_used_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    sign_ins (id) {
        id -> UuidSql,
        kind -> Text,
        provider -> Text,
        handle_sha256 -> Text,
        browser_sha256 -> Nullable<Text>,
        secrets_sealed -> Text,
        return_to -> Nullable<Text>,
        poll_after -> BigInt,
        created_at -> BigInt,
        expires_at -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    logins (id) {
        id -> UuidSql,
        kind -> Text,
        sha256 -> Text,
        provider -> Text,
        subject -> Text,
        display -> Text,
        grants -> Text,
        created_at -> BigInt,
        last_seen_at -> BigInt,
        expires_at -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    revoked_tokens (sha256) {
        sha256 -> Text,
        expires_at -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    image_shares (image_id, project_id) {
        image_id -> UuidSql,
        project_id -> UuidSql,
        created_at -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    network_projects (network_id, project_id) {
        network_id -> UuidSql,
        project_id -> UuidSql,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    quotas (project_id) {
        project_id -> UuidSql,
        instances -> Nullable<BigInt>,
        nodes -> Nullable<BigInt>,
        images -> Nullable<BigInt>,
        virtual_bytes -> Nullable<BigInt>,
        used_bytes -> Nullable<BigInt>,
        version -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    audit (id) {
        id -> UuidSql,
        at -> BigInt,
        actor -> Text,
        project_id -> Nullable<UuidSql>,
        action -> Text,
        outcome -> Text,
        text -> Text,
        position -> Nullable<BigInt>,
        hash -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    audit_heads (position, kind) {
        position -> BigInt,
        kind -> Text,
        hash -> Text,
        signed_at -> BigInt,
        public_key -> Text,
        signature -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    leases (name) {
        name -> Text,
        holder -> Text,
        held_until -> BigInt,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use crate::key::UuidSql;
    compatibility (id) {
        id -> BigInt,
        oldest -> BigInt,
    }
}

diesel::allow_tables_to_appear_in_same_query!(
    projects,
    bindings,
    nodes,
    nics,
    images,
    image_shares,
    instances,
    networks,
    network_projects,
    agents,
    enrolled_agents,
    join_tokens,
    operations,
    journal,
    stages,
    sessions,
    service_accounts,
    service_tokens
);
