<?php
define('DB_NAME', 'wordpress');
define('DB_USER', 'root'); // by the socket, which proves who asks: there is no password to leak
define('DB_PASSWORD', '');
define('DB_HOST', 'localhost:/run/mysqld/mysqld.sock');
define('DB_CHARSET', 'utf8mb4');
define('WP_CONTENT_DIR', '/var/lib/wordpress/wp-content');
// The demo answers under whatever name the visitor came by.
$scheme = ($_SERVER['HTTP_X_FORWARDED_PROTO'] ?? '') === 'https' ? 'https' : 'http';
if ($scheme === 'https') {
    $_SERVER['HTTPS'] = 'on';
}
$host = preg_match('/^[a-z0-9.-]+(:[0-9]+)?$/i', $_SERVER['HTTP_HOST'] ?? '') ? $_SERVER['HTTP_HOST'] : 'localhost';
define('WP_HOME', "$scheme://$host");
define('WP_SITEURL', "$scheme://$host");
// Nothing here may call out, and nothing runs behind the visitor's back.
define('WP_HTTP_BLOCK_EXTERNAL', true);
define('DISABLE_WP_CRON', true);
define('AUTOMATIC_UPDATER_DISABLED', true);
define('FS_METHOD', 'direct');
if (is_readable('/etc/wordpress/keys.php')) {
    require '/etc/wordpress/keys.php';
}
$table_prefix = 'wp_';
