<?php
// Installs WordPress and gives it something to show.
define('WP_INSTALLING', true);
$_SERVER['HTTP_HOST'] = 'golden.invalid';
require '/srv/wordpress/wp-load.php';
require_once ABSPATH . 'wp-admin/includes/upgrade.php';
// Sending mail is not possible here, and not wanted.
function wp_mail(...$ignored) { return true; }
wp_install('A demo of WordPress', 'admin', 'admin@golden.invalid', false, '', bin2hex(random_bytes(16)));
$posts = [
    ['Welcome to your own shop window', 'This site is yours alone for a while. Change whatever you like: nobody else sees it.'],
    ['How it came so quickly', 'It was not started for you: it was already running, restored from the memory of a machine that had done all the work before.'],
    ['What happens at the end', 'When your time is over, everything here is removed. Nothing is kept.'],
];
foreach ($posts as [$title, $text]) {
    $id = wp_insert_post(['post_title' => $title, 'post_content' => $text, 'post_status' => 'publish', 'post_author' => 1], true);
    if (is_wp_error($id)) {
        fwrite(STDERR, $id->get_error_message() . "\n");
        exit(1);
    }
}
update_option('permalink_structure', '');
