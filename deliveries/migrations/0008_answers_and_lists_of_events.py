from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('deliveries', '0007_lists_of_what_was_not_delivered'),
    ]

    operations = [
        migrations.RenameField(
            model_name='idempotencykey',
            old_name='request_id',
            new_name='stored_id',
        ),
        migrations.AddField(
            model_name='idempotencykey',
            name='answer',
            field=models.BinaryField(null=True),
        ),
        migrations.AddIndex(
            model_name='event',
            index=models.Index(fields=['event_type', '-id'], name='events_by_type'),
        ),
        migrations.AddIndex(
            model_name='event',
            index=models.Index(condition=models.Q(('tenant', ''), _negated=True), fields=['tenant', '-id'], name='events_by_tenant'),
        ),
        migrations.AddIndex(
            model_name='event',
            index=models.Index(condition=models.Q(('tenant', ''), _negated=True), fields=['tenant', 'event_type', '-id'], name='events_by_tenant_and_type'),
        ),
    ]
